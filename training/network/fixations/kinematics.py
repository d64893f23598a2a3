"""Kinematics: a scanpath in the numbers that a classical classifier of gaze reads. An option; the paper has none of it.

The paper's encodings say where, when and how long in sinusoids, of which few samples teach a network no averages. Here
the same is said in a few numbers in place of the sinusoids, each with a fixed standardisation: of people who look at
photographs, about 0 on average and about 1 in spread. Nothing is fitted to a data set, so a bundle has nothing to carry
but weights.
"""

import torch
from torch import Tensor, nn

from training.network.config import NetworkConfig

# (mean, scale): the network reads (value - mean) / scale. Lengths are in widths and heights of the image.
_CENTRE = (0.5, 0.2)
_LOG_SIZE = (-2.3, 0.7)
_LOG_SECONDS = (-1.4, 0.6)
_LOG_COUNT = (1.5, 0.7)
_AMPLITUDE = (0.25, 0.15)
_SPREAD = (0.15, 0.1)
_LOG_SPREAD = (0.4, 0.2)
_LOG_TOTAL = (0.5, 0.7)

# What is shorter is taken for this long: logarithms and directions stay finite.
_SHORTEST_SECONDS, _SHORTEST_LENGTH = 1e-3, 1e-3
_LOWEST = -50.0  # below every logarithm of seconds, of a millionth as of a million years

FIXATION_NUMBERS, SCANPATH_NUMBERS = 12, 26


class KinematicsEmbedding(nn.Module):
    """Linear maps: each fixation's numbers become part of its token, the whole scanpath's a token of its own.

    MLPs in their place learn a few hundred scanpaths by heart, and tell people apart less well; so do these maps where
    sinusoids are added to them.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.fixation = nn.Linear(FIXATION_NUMBERS, config.hidden_size)
        self.scanpath = nn.Linear(SCANPATH_NUMBERS, config.hidden_size)
        for layer in (self.fixation, self.scanpath):
            # From the start as large as the sinusoids in whose place they are.
            nn.init.normal_(layer.weight, std=layer.in_features**-0.5)
            nn.init.zeros_(layer.bias)

    def forward(self, boxes: Tensor, durations: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """(B, M, 4) boxes, (B, M) seconds and bool mask -> (B, M, D) and (B, 1, D); what is padding has no meaning."""
        fixations, scanpaths = kinematics(boxes, durations, mask)
        return self.fixation(fixations), self.scanpath(scanpaths).unsqueeze(1)


def kinematics(boxes: Tensor, durations: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Describes each fixation and each scanpath in standardised numbers.

    Args:
        boxes: (B, M, 4) corners x1, y1, x2, y2 in [0, 1].
        durations: (B, M) seconds.
        mask: (B, M) bool, True for real fixations, which come before all padding.

    Returns:
        Of the fixations, (B, M, 12): centre x and y; log width and height; log duration; amplitude of the saccade from
        the fixation before, and cosine and sine of its direction, all three 0 in the first fixation; log of the number
        from the start and from the end, both from 1; whether it is the first, and the last.

        Of the scanpaths, (B, 26): log of the number of fixations, of the whole time and of the path's length; of the
        log durations mean, standard deviation, least, greatest, first and last; of the centres' x and y mean, first,
        last and standard deviation; mean log width and height; of the saccades the mean amplitude, also along x and
        along y alone, the standard deviation, greatest and first, all as if 0 where there is none; and whether there is
        one.

        All are finite, also in padding and where nothing is real.
    """
    # Padding becomes what every formula accepts, so that neither it nor its gradient is ever infinite.
    log_seconds = durations.masked_fill(~mask, 1.0).clamp(min=_SHORTEST_SECONDS).log()
    boxes = boxes.masked_fill(~mask.unsqueeze(-1), 0.5)
    centres, log_sizes = (boxes[..., :2] + boxes[..., 2:]) / 2, _log_length(boxes[..., 2:] - boxes[..., :2])

    real = mask.to(durations.dtype)
    number, count = real.cumsum(-1), real.sum(-1, keepdim=True)
    first, last = real * (number == 1), real * (number == count)
    follows = real - first
    steps = centres - torch.cat((centres[:, :1], centres[:, :-1]), dim=1)
    amplitudes = (steps.square().sum(-1) + _SHORTEST_LENGTH**2).sqrt()
    directions = steps / amplitudes.unsqueeze(-1)

    fixations = [
        *_standardise(centres, _CENTRE).unbind(-1),
        *_standardise(log_sizes, _LOG_SIZE).unbind(-1),
        _standardise(log_seconds, _LOG_SECONDS),
        follows * _standardise(amplitudes, _AMPLITUDE),
        *(follows.unsqueeze(-1) * directions).unbind(-1),
        _standardise(number.clamp(min=1).log(), _LOG_COUNT),
        _standardise((count - number + 1).log(), _LOG_COUNT),
        first,
        last,
    ]
    path = _sum(amplitudes, follows)
    scanpaths = [
        _standardise(count.squeeze(-1).clamp(min=1).log(), _LOG_COUNT),
        _standardise(_log_length(_sum(log_seconds.exp(), real)), _LOG_TOTAL),
        _standardise(_log_length(path), _LOG_TOTAL),
        _standardise(_mean(log_seconds, real), _LOG_SECONDS),
        _standardise(_deviation(log_seconds, real), _LOG_SPREAD),
        *(
            _standardise(extreme, _LOG_SECONDS)
            for extreme in (
                -_greatest(-log_seconds, mask),
                _greatest(log_seconds, mask),
                _sum(log_seconds, first),
                _sum(log_seconds, last),
            )
        ),
    ]
    for x_or_y in centres.unbind(-1):
        places = (_mean(x_or_y, real), _sum(x_or_y, first), _sum(x_or_y, last))
        scanpaths += [_standardise(place, _CENTRE) for place in places]
        scanpaths.append(_standardise(_deviation(x_or_y, real), _SPREAD))
    scanpaths += [_standardise(_mean(size, real), _LOG_SIZE) for size in log_sizes.unbind(-1)]
    lengths = (amplitudes, *steps.abs().unbind(-1))
    scanpaths += [_standardise(_mean(length, follows), _AMPLITUDE) for length in lengths]
    scanpaths += [
        _standardise(_deviation(amplitudes, follows), _SPREAD),
        _standardise(_greatest(follows * amplitudes, mask), _AMPLITUDE),
        _standardise(_sum(amplitudes, (number == 2) * real), _AMPLITUDE),
        (count.squeeze(-1) > 1).to(real.dtype),
    ]
    return torch.stack(fixations, dim=-1), torch.stack(scanpaths, dim=-1)


def _standardise(values: Tensor, standard: tuple[float, float]) -> Tensor:
    mean, scale = standard
    return (values - mean) / scale


def _log_length(lengths: Tensor) -> Tensor:
    return lengths.clamp(min=_SHORTEST_LENGTH).log()


def _sum(values: Tensor, weights: Tensor) -> Tensor:
    return (values * weights).sum(-1)


def _mean(values: Tensor, weights: Tensor) -> Tensor:
    return _sum(values, weights) / weights.sum(-1).clamp(min=1)


def _deviation(values: Tensor, weights: Tensor) -> Tensor:
    centred = values - _mean(values, weights).unsqueeze(-1)
    return (_mean(centred.square(), weights) + _SHORTEST_LENGTH**2).sqrt()


def _greatest(values: Tensor, mask: Tensor) -> Tensor:
    return values.masked_fill(~mask, _LOWEST).amax(-1)
