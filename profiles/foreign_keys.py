"""Maps setting names of other trainers (Hugging Face, nanoGPT, DeepSpeed, Megatron-LM) to ours, for error messages."""

from __future__ import annotations

_NAMES = {
    "batch.micro (per device) or batch.sequences (per step)": ("batch_size",),
    "batch.micro": ("micro_batch_size", "per_device_train_batch_size", "train_micro_batch_size_per_gpu"),
    "batch.sequences": ("global_batch_size", "train_batch_size"),
    "batch.accum": ("grad_accum", "grad_accum_steps", "accumulation_steps", "gradient_accumulation_steps"),
    "batch.context": (
        *("block_size", "context_length", "max_length", "max_seq_len", "max_seq_length"),
        *("seq_len", "seq_length", "sequence_length"),
    ),
    "train.steps": ("max_iters", "max_steps", "num_iterations", "num_steps", "total_steps", "train_iters"),
    "train.seed": ("random_seed",),
    "train.precision": ("bf16", "dtype", "fp16", "mixed_precision"),
    "train.val_every": ("eval_interval", "eval_steps", "val_interval"),
    "train.val_sequences": ("eval_iters", "eval_samples", "val_steps"),
    "train.save_every": ("checkpoint_interval", "save_interval", "save_steps"),
    "train.keep": ("save_total_limit",),
    "train.out": ("out_dir", "output_dir", "save_dir"),
    "optim.name": ("optimizer", "optimizer_name"),
    "optim.lr": ("learning_rate", "max_lr"),
    "optim.final_lr": ("min_learning_rate", "min_lr"),
    "optim.warmup": ("lr_warmup_iters", "warmup_iters", "warmup_steps"),
    "optim.muon_lr": ("matrix_lr", "muon_learning_rate"),
    "optim.schedule": ("lr_decay_style", "lr_scheduler", "lr_scheduler_type", "scheduler"),
    "optim.decay": ("cooldown_steps", "decay_steps", "lr_decay_iters", "lr_wsd_decay_iters", "warmdown_iters"),
    "optim.beta1 and optim.beta2": ("betas",),
    "optim.beta1": ("adam_beta1",),
    "optim.beta2": ("adam_beta2",),
    "optim.eps": ("adam_eps", "adam_epsilon", "epsilon"),
    "optim.clip": ("clip_grad", "grad_clip", "gradient_clipping", "max_grad_norm"),
    "optim.weight_decay": ("wd",),
    "memory.checkpointing": ("activation_checkpointing", "gradient_checkpointing"),
    "data.documents": ("document_masking", "intra_doc_masking", "reset_attention_mask"),
    "data.root": ("data_dir", "data_path", "dataset"),
    "data.sources": ("blend", "data_blend", "data_mixture", "mixture", "mixture_weights"),
    "data.workers": ("dataloader_num_workers", "num_workers"),
    "launch.gpus_per_node": ("n_gpus", "nproc_per_node", "num_gpus"),
    "model.hidden_size": ("d_model", "n_embd"),
    "model.num_attention_heads": ("n_head", "n_heads", "num_heads"),
    "model.num_hidden_layers": ("n_layer", "n_layers", "num_layers"),
}
OUR_KEYS = {name: key for key, names in _NAMES.items() for name in names}


def our_key(name: str) -> str | None:
    """Return our key for another trainer's setting, such as ``learning_rate`` or ``--max-steps``, or None."""
    return OUR_KEYS.get(name.lstrip("-").replace("-", "_").lower())
