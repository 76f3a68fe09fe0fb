"""Box branch: what each RoI holds, and where exactly (Fast R-CNN with the two layers of FPN).

Legend: R RoIs, K classes, C channels, O side of the RoI feature.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maskrcnn.config import BoxHeadConfig
from maskrcnn.models.norm import head_conv


class BoxHead(nn.Module):
    """Convolutions if asked for, fully connected layers, then K+1 class scores (background last) and box offsets.

    The first fully connected layer reads its input in (row, column, channel) order, in which RoIAlign writes
    it, so that nothing is copied; a checkpoint that stores (channel, row, column) is permuted once when imported.
    """

    def __init__(self, channels: int, num_classes: int, config: BoxHeadConfig) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.class_agnostic = config.class_agnostic
        wide, hidden = config.conv_channels, config.hidden
        self.convs = nn.ModuleList(
            [head_conv(channels if i == 0 else wide, wide, 3, config.norm) for i in range(config.convs)]
        )
        read = config.resolution**2 * (wide if config.convs else channels)
        layers = [nn.Linear(read if i == 0 else hidden, hidden) for i in range(config.layers)]
        self.layers = nn.ModuleList(layers)
        self.class_logits = nn.Linear(hidden, num_classes + 1)
        self.deltas = nn.Linear(hidden, 4 if config.class_agnostic else 4 * num_classes)
        for layer in layers:
            nn.init.kaiming_uniform_(layer.weight, a=1)
        nn.init.normal_(self.class_logits.weight, std=0.01)
        nn.init.normal_(self.deltas.weight, std=0.001)
        for layer in (*layers, self.class_logits, self.deltas):
            nn.init.zeros_(layer.bias)

    def forward(self, roi_features: Tensor) -> tuple[Tensor, Tensor]:
        """(R, C, O, O) channels-last -> logits (R, K+1) and deltas (R, K, 4), or (R, 1, 4) if agnostic; float32."""
        x = roi_features
        for conv in self.convs:
            x = F.relu_(conv(x))
        x = x.permute(0, 2, 3, 1).flatten(1)
        for layer in self.layers:
            x = F.relu_(layer(x))
        deltas = self.deltas(x).float()
        return self.class_logits(x).float(), deltas.view(len(deltas), -1, 4)

    def deltas_of(self, deltas: Tensor, labels: Tensor) -> Tensor:
        """The offsets of each RoI's class: (R, K or 1, 4) and (R,) labels in 0..K-1 -> (R, 4)."""
        if self.class_agnostic:
            return deltas[:, 0]
        return torch.gather(deltas, 1, labels[:, None, None].expand(-1, 1, 4))[:, 0]
