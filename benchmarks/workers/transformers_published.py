"""What transformers makes of a published model: ids, log-probabilities, continuations or vectors. Started by benchmarks/published.py.

One request, a JSON file that the first argument names: {"job", "model": a .gguf file or a folder, "answer": the file to write, ...}.
"""

import json
import os
import sys
from pathlib import Path

import torch
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer


def place(model: str) -> dict:
    """As from_pretrained takes it."""
    path = Path(model)
    where = {"pretrained_model_name_or_path": str(path.parent), "gguf_file": path.name}
    return where if path.suffix == ".gguf" else {"pretrained_model_name_or_path": model}


def tokens(request: dict) -> dict:
    """ids: as the tokenizer comes. cut: with every number a word of its own (\\p{N}, as llama.cpp cuts where a file names smollm)."""
    import tokenizers
    from tokenizers.pre_tokenizers import Sequence, Split

    loaded = AutoTokenizer.from_pretrained(**place(request["model"])).backend_tokenizer
    loaded.no_truncation()
    loaded.no_padding()
    found = {"ids": [one.ids for one in loaded.encode_batch(request["texts"], add_special_tokens=False)]}
    if request["cut"]:
        loaded.pre_tokenizer = Sequence([Split(tokenizers.Regex(r"\p{N}"), "isolated"), loaded.pre_tokenizer])
        found["cut"] = [one.ids for one in loaded.encode_batch(request["texts"], add_special_tokens=False)]
    return found


def perplexity(request: dict) -> dict:
    """nll: nats of each token of each window but its first."""
    model = decoder(request)
    found = []
    with torch.inference_mode():
        for window in request["windows"]:
            ids_T = torch.tensor(window)
            log_p_TV = torch.log_softmax(model(ids_T[None]).logits[0, :-1].float(), -1)
            found.append((-log_p_TV.gather(1, ids_T[1:, None])[:, 0]).tolist())
    return {"nll": found}


def greedy(request: dict) -> dict:
    model = decoder(request)
    options = {"do_sample": False, "max_new_tokens": request["new"], "eos_token_id": request["stop"], "pad_token_id": request["stop"][0]}
    found = []
    with torch.inference_mode():
        for prompt in request["prompts"]:
            ids_BT = torch.tensor([prompt])
            out_BT = model.generate(ids_BT, attention_mask=torch.ones_like(ids_BT), **options)
            found.append(out_BT[0, len(prompt) :].tolist())
    return {"ids": found}


def embeddings(request: dict) -> dict:
    """Means of the last hidden states, of length one; each text is a batch of its own, so nothing is padded."""
    tokenizer, model = AutoTokenizer.from_pretrained(**place(request["model"])), AutoModel.from_pretrained(**place(request["model"]))
    model = model.float().eval()
    found = []
    with torch.inference_mode():
        for text in request["texts"]:
            hidden_TD = model(**tokenizer(text, truncation=True, max_length=request["most"], return_tensors="pt")).last_hidden_state[0]
            found.append(torch.nn.functional.normalize(hidden_TD.mean(0), dim=0).tolist())
    return {"vectors": found}


def decoder(request: dict):
    return AutoModelForCausalLM.from_pretrained(**place(request["model"]), dtype=torch.float32).eval()


def main():
    request = json.loads(Path(sys.argv[1]).read_text())
    torch.set_num_threads(os.cpu_count())
    answer = {"tokens": tokens, "perplexity": perplexity, "greedy": greedy, "embeddings": embeddings}[request["job"]](request)
    Path(request["answer"]).write_text(json.dumps(answer))


if __name__ == "__main__":
    main()
