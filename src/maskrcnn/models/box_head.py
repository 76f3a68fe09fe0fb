"""Box branch: what each RoI holds, and where exactly (Fast R-CNN with the two layers of FPN).

Legend: R RoIs, K classes, C channels, O side of the RoI feature.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class BoxHead(nn.Module):
    """Two fully connected layers, then K+1 class scores (background last) and box offsets.

    The first layer reads the RoI feature in (row, column, channel) order, in which RoIAlign writes it, so
    that nothing is copied; a checkpoint that stores (channel, row, column) is permuted once when imported.
    """

    def __init__(self, channels: int, resolution: int, hidden: int, num_classes: int, class_agnostic: bool) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.class_agnostic = class_agnostic
        self.fc1 = nn.Linear(resolution * resolution * channels, hidden)
        self.fc2 = nn.Linear(hidden, hidden)
        self.class_logits = nn.Linear(hidden, num_classes + 1)
        self.deltas = nn.Linear(hidden, 4 if class_agnostic else 4 * num_classes)
        for layer in (self.fc1, self.fc2):
            nn.init.kaiming_uniform_(layer.weight, a=1)
        nn.init.normal_(self.class_logits.weight, std=0.01)
        nn.init.normal_(self.deltas.weight, std=0.001)
        for layer in (self.fc1, self.fc2, self.class_logits, self.deltas):
            nn.init.zeros_(layer.bias)

    def forward(self, roi_features: Tensor) -> tuple[Tensor, Tensor]:
        """(R, C, O, O) channels-last -> logits (R, K+1) and deltas (R, K, 4), or (R, 1, 4) if agnostic; float32."""
        x = roi_features.permute(0, 2, 3, 1).flatten(1)
        x = F.relu_(self.fc2(F.relu_(self.fc1(x))))
        deltas = self.deltas(x).float()
        return self.class_logits(x).float(), deltas.view(len(deltas), -1, 4)

    def deltas_of(self, deltas: Tensor, labels: Tensor) -> Tensor:
        """The offsets of each RoI's class: (R, K or 1, 4) and (R,) labels in 0..K-1 -> (R, 4)."""
        if self.class_agnostic:
            return deltas[:, 0]
        return torch.gather(deltas, 1, labels[:, None, None].expand(-1, 1, 4))[:, 0]
