"""Random weights: the seed counts."""

import torch
from torch import nn

from ortsep.export.weights.random_weights import randomise


def test_seeds_give_different_weights_and_each_its_own_again() -> None:
    layers = [nn.Linear(8, 8) for _ in range(3)]
    for layer, seed in zip(layers, (1, 2, 1), strict=True):
        randomise(layer, seed)
    assert torch.equal(layers[0].weight, layers[2].weight)
    assert not torch.isclose(layers[0].weight, layers[1].weight).any()
