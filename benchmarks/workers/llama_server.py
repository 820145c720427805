"""llama.cpp's own HTTP server, from the package xllamacpp, until it is ended: MODEL PORT SLOTS CONTEXT THREADS."""

import sys
import time

import xllamacpp

model, port, slots, context, threads = sys.argv[1], *map(int, sys.argv[2:])
options = xllamacpp.CommonParams()
options.model.path, options.port, options.n_parallel, options.n_ctx = model, port, slots, slots * context
options.cpuparams.n_threads = options.cpuparams_batch.n_threads = threads
options.warmup = True
server = xllamacpp.Server(options)
print("ready", server.listening_address, flush=True)
while True:
    time.sleep(3600)
