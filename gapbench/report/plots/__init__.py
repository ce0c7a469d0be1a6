"""The figures, a module a subject."""

# known without importing what draws them; a test compares this with the registry
NAMES = (
    "accuracy_vs_epochs",
    "accuracy_vs_flops",
    "accuracy_vs_partitions",
    "accuracy_vs_sparsity",
    "anytime",
    "branch_iou",
    "coverage",
    "layer_density",
    "loss_curves",
    "mask_iou",
    "means",
    "prune_shock",
)
