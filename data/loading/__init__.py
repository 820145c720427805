"""Work spread over threads and processes, with progress and a journal: prefetching, preparation tasks."""
