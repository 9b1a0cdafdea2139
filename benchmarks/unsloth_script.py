"""LoRA fine-tuning as Unsloth documents it: FastLanguageModel, TRL's SFTTrainer, loss on responses only.

    python -m benchmarks.unsloth_script BASE DATA.jsonl OUT SETTINGS_JSON

Where the notebook's choice would be slower here, the faster one stands: one batch a step instead of several accumulated
ones, and no checkpointing of activations on a CPU.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import unsloth  # isort: skip # before transformers, which it changes
import torch
from datasets import load_dataset
from trl import SFTConfig, SFTTrainer
from unsloth.chat_templates import train_on_responses_only


def main(base: str, data: str, out: str, given: str) -> None:
    settings: dict[str, Any] = json.loads(given)
    cuda = torch.cuda.is_available()
    torch.set_num_threads(settings["threads"])
    model, tokenizer = unsloth.FastLanguageModel.from_pretrained(
        base, max_seq_length=settings["max_tokens"], dtype=None if cuda else torch.float32, load_in_4bit=False
    )
    model = unsloth.FastLanguageModel.get_peft_model(
        model, r=settings["rank"], lora_alpha=settings["alpha"], lora_dropout=0, bias="none",
        target_modules=["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
        use_gradient_checkpointing="unsloth" if cuda else False, random_state=settings["seed"],
    )  # fmt: skip

    def rendered(rows: dict[str, Any]) -> dict[str, list[str]]:
        return {"text": [tokenizer.apply_chat_template(each, tokenize=False) for each in rows["messages"]]}

    trainer = SFTTrainer(
        model=model, tokenizer=tokenizer,
        train_dataset=load_dataset("json", data_files=data, split="train").map(rendered, batched=True),
        args=SFTConfig(
            output_dir=out, dataset_text_field="text", max_length=settings["max_tokens"], packing=False,
            per_device_train_batch_size=settings["batch_size"], max_steps=settings["steps"], warmup_steps=5,
            learning_rate=settings["learning_rate"], optim="adamw_torch", weight_decay=settings["weight_decay"],
            lr_scheduler_type="linear", seed=settings["seed"], logging_steps=1, save_strategy="no", report_to="none",
            bf16=cuda, fp16=False, use_cpu=not cuda,
        ),
    )  # fmt: skip
    asked, answered = turns(tokenizer)
    trainer = train_on_responses_only(trainer, instruction_part=asked, response_part=answered)
    trainer.train()
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)


def turns(tokenizer: Any) -> tuple[str, str]:
    """What the chat template puts before a user's words, and before the answer."""
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": "WORDS"}], tokenize=False, add_generation_prompt=True
    )
    before, _, after = text.removeprefix(tokenizer.bos_token or "").partition("WORDS")
    return before, after


if __name__ == "__main__":
    main(*sys.argv[1:])
