"""transformers' Trainer fine-tunes a classifier, and its pipeline answers: `… MODEL DATA.json SETTINGS.json`.

DATA holds lists of texts and numbers of labels: {"train": [[text, label] …], "test": […]}. Prints one JSON object:
seconds of tokenising and training, test accuracy, seconds of the pipeline over all test texts.
"""

import json
import sys
import tempfile
import time
from pathlib import Path

import torch
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
    pipeline,
)

source, settings = sys.argv[1], json.loads(sys.argv[3])
data = json.loads(Path(sys.argv[2]).read_text("utf-8"))
torch.set_num_threads(settings["threads"])
tokenizer = AutoTokenizer.from_pretrained(source)
labels = 1 + max(label for _, label in data["train"])
model = AutoModelForSequenceClassification.from_pretrained(source, num_labels=labels, dtype=torch.float32)

start = time.perf_counter()
encoded = tokenizer([text for text, _ in data["train"]], truncation=True, max_length=settings["context"])
rows = [
    {"input_ids": ids, "attention_mask": mask, "labels": label}
    for ids, mask, (_, label) in zip(encoded["input_ids"], encoded["attention_mask"], data["train"], strict=True)
]
with tempfile.TemporaryDirectory() as room:
    arguments = TrainingArguments(
        output_dir=room,
        num_train_epochs=settings["epochs"],
        max_steps=settings.get("steps", -1),
        per_device_train_batch_size=settings["batch"],
        learning_rate=settings["lr"],
        weight_decay=settings["weight_decay"],
        warmup_steps=settings["warmup"],
        lr_scheduler_type="linear",
        use_cpu=True,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        logging_strategy="no",
        seed=settings["seed"],
    )
    collator = DataCollatorWithPadding(tokenizer)
    Trainer(model=model, args=arguments, train_dataset=rows, data_collator=collator).train()  # pyright: ignore
trained = time.perf_counter() - start

answer = pipeline("text-classification", model=model, tokenizer=tokenizer, device="cpu")
texts = [text for text, _ in data["test"]]
answer(texts[:64], batch_size=32, truncation=True)
start = time.perf_counter()
said = answer(texts, batch_size=32, truncation=True)
took = time.perf_counter() - start
right = sum(
    int(one["label"].removeprefix("LABEL_")) == label for one, (_, label) in zip(said, data["test"], strict=True)
)
print(json.dumps({"train_seconds": trained, "accuracy": right / len(texts), "predict_seconds": took}))
