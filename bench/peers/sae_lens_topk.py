"""The peer: sae-lens's top-k autoencoder and trainer on rows from a file. Run by `bench/_interp_features.py`.

    python sae_lens_topk.py ROWS.safetensors OUT.safetensors WIDTH K SAMPLES BATCH LR SEED THREADS

Writes the decoder's directions; prints the seconds of `SAETrainer.fit` as JSON. Batches are rows in an order that is
drawn anew each time round, as on the other side, and drawn before the clock starts.
"""

import json
import sys
import time
from collections.abc import Iterator

import torch
from sae_lens import LoggingConfig, TopKTrainingSAE, TopKTrainingSAEConfig  # pyright: ignore[reportMissingImports]
from sae_lens.config import SAETrainerConfig  # pyright: ignore[reportMissingImports]
from sae_lens.training.sae_trainer import SAETrainer  # pyright: ignore[reportMissingImports]
from safetensors.torch import load_file, save_file


def main() -> None:
    rows = load_file(sys.argv[1])["rows"]
    width, k, samples, batch = map(int, sys.argv[3:7])
    lr, seed, threads = float(sys.argv[7]), int(sys.argv[8]), int(sys.argv[9])
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    config = TopKTrainingSAEConfig(
        d_in=rows.shape[1], d_sae=width, k=k, device="cpu", normalize_activations="expected_average_only_in"
    )
    sae = TopKTrainingSAE(config)
    steps = -(-samples // batch)
    order = torch.cat([torch.randperm(len(rows)) for _ in range(-(-steps * batch // len(rows)))])

    def batches() -> Iterator[torch.Tensor]:
        while True:
            for start in range(0, steps * batch, batch):
                yield rows[order[start : start + batch]]

    trainer_config = SAETrainerConfig(
        n_checkpoints=0,
        checkpoint_path=None,
        save_final_checkpoint=False,
        total_training_samples=steps * batch,
        device="cpu",
        autocast=False,
        lr=lr,
        lr_end=0.0,
        lr_scheduler_name="constant",
        lr_warm_up_steps=steps // 20,
        adam_beta1=0.9,
        adam_beta2=0.999,
        lr_decay_steps=steps // 5,
        n_restart_cycles=1,
        train_batch_size_samples=batch,
        dead_feature_window=max(steps // 20, 20),
        feature_sampling_window=2000,
        logger=LoggingConfig(log_to_wandb=False),
        n_batches_for_norm_estimate=16,
    )
    started = time.perf_counter()
    trained = SAETrainer(cfg=trainer_config, sae=sae, data_provider=batches()).fit()
    seconds = time.perf_counter() - started
    save_file({"decoder": trained.W_dec.detach().contiguous()}, sys.argv[2])
    print(json.dumps({"seconds": seconds}))


main()
