"""Rounds of TRL's GRPO steps at the same shape, on random weights. Started by benchmarks/race.py with a Python that has trl."""

import json
import os
import resource
import sys
import tempfile
import time

os.environ.update(HF_HUB_OFFLINE="1", WANDB_DISABLED="true")

import torch
from datasets import Dataset
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast, TrainerCallback
from trl import GRPOConfig, GRPOTrainer


def byte_level_tokenizer():
    symbols = [*sorted(pre_tokenizers.ByteLevel.alphabet()), "<pad>", "<eos>"]
    tokenizer = Tokenizer(models.BPE(vocab={symbol: number for number, symbol in enumerate(symbols)}, merges=[]))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>"), len(symbols)


class Rounds(TrainerCallback):
    """Says `ready` after the warm-up, then reports the mean time of every `steps` steps when it is asked to."""

    def __init__(self, warm: int, steps: int):
        self.warm, self.steps, self.done, self.began = warm, steps, 0, 0.0

    def on_step_end(self, arguments, state, control, **_):
        self.done += 1
        if self.done < self.warm:
            return
        if self.done == self.warm:
            print("ready", flush=True)
        elif (self.done - self.warm) % self.steps:
            return
        else:
            seconds = (time.perf_counter() - self.began) / self.steps
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            print(json.dumps({"seconds": seconds, "peak_mib": peak}), flush=True)
        if not sys.stdin.readline():
            control.should_training_stop = True
        self.began = time.perf_counter()


def main():
    shape = json.loads(sys.argv[1])
    torch.set_num_threads(shape["threads"])
    tokenizer, size = byte_level_tokenizer()
    config = GPT2Config(
        vocab_size=size,
        n_positions=256,
        n_embd=shape["width"],
        n_layer=shape["layers"],
        n_head=shape["heads"],
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    prompts = [f"{number} please {'x' * 99}"[: shape["prompt"]] for number in range(512)]
    with tempfile.TemporaryDirectory() as folder:
        GPT2LMHeadModel(config).save_pretrained(folder)  # the trainer looks a model up by its name again
        tokenizer.save_pretrained(folder)
        options = GRPOConfig(
            output_dir=folder,
            per_device_train_batch_size=shape["batch"],
            num_generations=shape["group"],
            max_completion_length=shape["new"],
            max_steps=10**6,
            learning_rate=1e-3,
            beta=0.05,
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            report_to=[],
            save_strategy="no",
            logging_steps=10**6,
            disable_tqdm=True,
        )
        trainer = GRPOTrainer(
            GPT2LMHeadModel.from_pretrained(folder),
            reward_funcs=lambda completions, **_: [text.count("e") / (1 + len(text)) for text in completions],
            args=options,
            train_dataset=Dataset.from_dict({"prompt": prompts}),
            processing_class=tokenizer,
            callbacks=[Rounds(shape["warm"], shape["steps"])],
        )
        trainer.train()


if __name__ == "__main__":
    main()
