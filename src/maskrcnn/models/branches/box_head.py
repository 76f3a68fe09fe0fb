"""Box head: the class of each RoI and the offsets of its box (Fast R-CNN with the two layers of FPN).

Legend: R RoIs of all images, K classes, C channels, O side of the RoI features.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from maskrcnn.config import BoxHeadConfig
from maskrcnn.models.norm import head_conv


class BoxHead(nn.Module):
    """Optional convolutions and fully connected layers, then two linear layers to class logits and box offsets.

    Without fully connected layers (C4) the features are averaged over the RoI instead. The first fully connected layer
    takes its input in the order (row, column, channel), in which RoIAlign writes it, so that nothing is copied. An
    importer permutes the weight of a checkpoint that stores (channel, row, column).

    Args:
        channels: channels of the RoI features.
        resolution: O.
        unused_classes: number of further classes in the logits, after the background.
    """

    def __init__(
        self, channels: int, resolution: int, num_classes: int, config: BoxHeadConfig, unused_classes: int = 0
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        conv_channels, hidden = config.conv_channels, config.hidden
        self.convs = nn.ModuleList(
            [
                head_conv(channels if i == 0 else conv_channels, conv_channels, 3, config.norm)
                for i in range(config.convs)
            ]
        )
        pooled_channels = conv_channels if config.convs else channels
        self.layers = fully_connected(resolution**2 * pooled_channels, hidden, config.layers)
        in_features = hidden if config.layers else pooled_channels
        self.class_logits = nn.Linear(in_features, num_classes + 1 + unused_classes)
        self.deltas = nn.Linear(in_features, 4 if config.class_agnostic else 4 * num_classes)
        nn.init.normal_(self.class_logits.weight, std=0.01)
        nn.init.normal_(self.deltas.weight, std=0.001)
        for layer in (self.class_logits, self.deltas):
            nn.init.zeros_(layer.bias)

    def forward(self, roi_features: Tensor) -> tuple[Tensor, Tensor]:
        """(R, C, O, O) channels-last -> float32 logits (R, K + 1 and the unused classes), the background at K, and
        deltas (R, K, 4), or (R, 1, 4) if class-agnostic."""
        x = roi_features
        for conv in self.convs:
            x = F.relu_(conv(x))
        x = x.permute(0, 2, 3, 1).flatten(1) if self.layers else x.mean(dim=(2, 3))
        for layer in self.layers:
            x = F.relu_(layer(x))
        deltas = self.deltas(x).float()
        return self.class_logits(x).float(), deltas.view(deltas.shape[0], -1, 4)


def fully_connected(in_features: int, hidden: int, count: int) -> nn.ModuleList:
    """`count` fully connected layers of `hidden` units, initialised like Caffe2's XavierFill."""
    layers = nn.ModuleList()
    for i in range(count):
        layer = nn.Linear(hidden if i else in_features, hidden)
        nn.init.kaiming_uniform_(layer.weight, a=1)
        nn.init.zeros_(layer.bias)
        layers.append(layer)
    return layers
