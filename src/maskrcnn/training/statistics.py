"""Statistics of batch norm, computed anew from training images with the weights as they are."""

from __future__ import annotations

from contextlib import closing
from itertools import islice

import torch
from torch.nn.modules.batchnorm import _BatchNorm

from maskrcnn.config import Config
from maskrcnn.data.loading.loader import training_batches
from maskrcnn.models.mask_rcnn import MaskRCNN
from maskrcnn.ops.device import in_precision
from maskrcnn.structures.dataset import Dataset
from maskrcnn.structures.tensors import to_device


@torch.no_grad()
def estimate_statistics(network: MaskRCNN, dataset: Dataset, config: Config) -> None:
    """Replaces the running statistics of batch norm by their means over `config.train.batch_norm_images` images.

    The statistics that training collects lag behind the weights, most of all behind an average of them. Norms of frozen
    stages keep their statistics. The network is in evaluation mode afterwards.
    """
    settings, device = config.train, network.pixel_mean.device
    network.train()
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm) and module.training]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean over all batches
    try:
        if norms:
            with closing(training_batches(dataset, config)) as batches:
                for number, batch in enumerate(islice(batches, -(-settings.batch_norm_images // settings.batch_size))):
                    torch.manual_seed(number)
                    moved = to_device(batch, device)
                    with in_precision(settings.precision, device):
                        network.loss_sums(moved.images, moved.targets)
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
    network.eval()
