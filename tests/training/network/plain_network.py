"""The network stated again with plain loops, one sample at a time."""

# ruff: noqa: N806 - the letters of the paper: V, L, T, Z, Q

import math

import torch
from torch import Tensor

from tests.training.network.plain_kinematics import plain_fixations, plain_scanpath
from tests.training.network.small_network import CONFIG
from training.network import Deper


class Plain:
    """The network on one sample, straight from the formulas: no batch, no padding, no masks, head by head."""

    def __init__(self, deper: Deper) -> None:
        self.config = deper.persona_encoder.config
        self.weights = {name: value.detach() for name, value in deper.state_dict().items()}

    def linear(self, name: str, x: Tensor) -> Tensor:
        return x @ self.weights[f"{name}.weight"].T + self.weights[f"{name}.bias"]

    def norm(self, name: str, x: Tensor) -> Tensor:
        x = x - x.mean(-1, keepdim=True)
        x = x / ((x * x).mean(-1, keepdim=True) + 1e-5).sqrt()
        return x * self.weights[f"{name}.weight"] + self.weights[f"{name}.bias"]

    def gelu(self, x: Tensor) -> Tensor:
        return x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))

    def attend(self, name: str, x: Tensor, context: Tensor) -> Tensor:
        q, k, v = (
            self.linear(f"{name}.attention.{part}", y)
            for part, y in (("query", x), ("key", context), ("value", context))
        )
        width = CONFIG.hidden_size // CONFIG.num_heads
        rows = []
        for i in range(len(x)):
            heads = []
            for h in range(CONFIG.num_heads):
                part = slice(h * width, (h + 1) * width)
                weights = torch.stack(
                    [(q[i, part] * k[j, part]).sum() / math.sqrt(width) for j in range(len(context))]
                ).exp()
                heads.append(sum(w * v[j, part] for j, w in enumerate(weights)) / weights.sum())
            rows.append(torch.cat(heads))
        answer = self.linear(f"{name}.attention.output", torch.stack(rows)) if rows else x
        return self.norm(f"{name}.norm", x + answer)

    def feed_forward(self, name: str, x: Tensor) -> Tensor:
        inner = self.linear(f"{name}.layers.3", self.gelu(self.linear(f"{name}.layers.0", x)))
        return self.norm(f"{name}.norm", x + inner)

    def add_kinematics(self, T: Tensor, boxes: Tensor, durations: Tensor) -> Tensor:
        """Each fixation's numbers added to what its box covers, and one more token for the scanpath."""
        if not len(T):
            return T

        scanpath = boxes.tolist(), durations.tolist()
        own, whole = (
            self.linear(
                f"persona_encoder.trajectory_embedding.kinematics.{part}", torch.tensor(numbers, dtype=torch.float64)
            )
            for part, numbers in (("fixation", plain_fixations(*scanpath)), ("scanpath", [plain_scanpath(*scanpath)]))
        )
        return torch.cat((T + own, whole))

    def readout(self, name: str, context: Tensor) -> Tensor:
        x = self.attend(f"{name}.cross_attention", self.weights[f"{name}.query"][0], context)
        return self.linear(f"{name}.head.3", self.gelu(self.linear(f"{name}.head.1", self.norm(f"{name}.head.0", x))))[
            0
        ]

    def embed_trajectory(self, image: Tensor, boxes: Tensor, durations: Tensor) -> Tensor:
        name = "persona_encoder.trajectory_embedding.projection"
        rows = [torch.zeros(0, CONFIG.hidden_size, dtype=torch.float64)]
        for i, (box, duration) in enumerate(zip(boxes.tolist(), durations.tolist(), strict=True)):
            x, y = (box[0] + box[2]) / 2 * CONFIG.grid_size, (box[1] + box[3]) / 2 * CONFIG.grid_size
            half = CONFIG.hidden_size // 2
            where = plain_sinusoid(x, half) + plain_sinusoid(y, half)
            extra = where
            if self.config.dynamics:
                when, how_long = plain_sinusoid(i, 2 * half), plain_sinusoid(duration * 100, 2 * half)
                extra = [sum(parts) for parts in zip(where, when, how_long, strict=True)]
            seen = self.linear(name, plain_pooling(image, box, CONFIG.grid_size))
            if not self.config.kinematics:
                seen = seen + torch.tensor(extra, dtype=torch.float64)
            rows.append(seen[None])
        return torch.cat(rows)

    def __call__(self, image: Tensor, words: Tensor, boxes: Tensor, durations: Tensor) -> dict[str, Tensor]:
        V = self.linear("persona_encoder.image_projection", image)
        L = self.linear("persona_encoder.text_projection", words)
        if self.config.word_order:
            places = [plain_sinusoid(i, CONFIG.hidden_size) for i in range(len(words))]
            L = L + self.config.word_order * torch.tensor(places, dtype=torch.float64).view(L.shape)
        L_0 = L
        T = self.embed_trajectory(image, boxes, durations)
        T = T if self.config.trajectory else T[:0]
        T = self.add_kinematics(T, boxes, durations) if self.config.kinematics else T
        for layer in range(CONFIG.encoder_layers):
            streams = []
            for stream, tokens, other in (("text", L, T), ("trajectory", T, L)):
                name = f"persona_encoder.dual_context.layers.{layer}.{stream}"
                tokens = self.attend(f"{name}.self_attention", tokens, tokens)
                context = torch.cat((V, other)) if self.config.dual_context else V
                tokens = self.attend(f"{name}.cross_attention", tokens, context)
                streams.append(self.feed_forward(f"{name}.feed_forward", tokens))
            L, T = streams
        Z = torch.cat((L, T))
        z_s = self.readout("persona_encoder.extractor", Z)
        latent = self.config.trajectory_latent
        z_traj = (
            self.readout("trajectory_decoder.latent", Z)
            if latent
            else self.linear("trajectory_decoder.from_subject", z_s)
        )
        Q = self.weights["trajectory_decoder.box_queries"][0] + z_traj
        for layer in range(CONFIG.decoder_layers):
            name = f"trajectory_decoder.layers.{layer}"
            Q = self.attend(f"{name}.self_attention", Q, Q)
            Q = self.attend(f"{name}.latent_attention", Q, z_traj[None])
            Q = self.attend(f"{name}.context_attention", Q, torch.cat((V, L_0)))
            if self.config.film:
                film = self.linear(f"{name}.film.gamma_beta.1", self.norm(f"{name}.film.gamma_beta.0", z_s)).tanh()
                Q = Q * (1 + film[: CONFIG.hidden_size]) + film[CONFIG.hidden_size :]
            Q = self.feed_forward(f"{name}.feed_forward", Q)
        numbers = self.linear("trajectory_decoder.head", Q)
        x1, y1, x2, y2 = (1 / (1 + torch.exp(-numbers[:, i])) for i in range(4))
        boxes = torch.stack(
            (torch.minimum(x1, x2), torch.minimum(y1, y2), torch.maximum(x1, x2), torch.maximum(y1, y2)), -1
        )
        logits = self.linear("subject_head.classifier", z_s)
        return {"dual": Z, "z_s": z_s, "logits": logits, "boxes": boxes, "validity": numbers[:, 4]}


def plain_sinusoid(value: float, size: int) -> list[float]:
    return [(math.cos if i % 2 else math.sin)(value / 10_000 ** (2 * (i // 2) / size)) for i in range(size)]


def plain_pooling(tokens: Tensor, box: list[float], grid_size: int, kind: str = "overlap") -> Tensor:
    """The mean over the cells from the floor of a box's near edge to the ceiling of its far edge, or by centres."""
    x1, y1, x2, y2 = (number * grid_size for number in box)
    if kind == "overlap":
        columns = range(math.floor(x1 + 1e-4), math.ceil(x2 - 1e-4))
        rows = range(math.floor(y1 + 1e-4), math.ceil(y2 - 1e-4))
    else:
        columns = [cell for cell in range(grid_size) if x1 <= cell + 0.5 <= x2]
        rows = [cell for cell in range(grid_size) if y1 <= cell + 0.5 <= y2]
    inside = [tokens[row * grid_size + column] for row in rows for column in columns]
    if not inside:
        column, row = (min(int((a + b) / 2), grid_size - 1) for a, b in ((x1, x2), (y1, y2)))
        inside = [tokens[row * grid_size + column]]
    return sum(inside) / len(inside)
