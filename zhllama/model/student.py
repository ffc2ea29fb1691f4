"""New input rows and first layers in training, with their optimizers, which a checkpoint restores exactly."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from zhllama.model.first_layers import FirstLayers, bf16_products
from zhllama.model.lessons import Lesson

if TYPE_CHECKING:
    import torch

MAP_RATE, MAP_BETAS = 5e-4, (0.9, 0.98)
OWN_RATE, OWN_BETAS = 0.15, (0.9, 0.99)  # the rate is relative to the standard deviation of the old rows
LAYER_RATE, LAYER_BETAS, LAYER_WIDTH = 3e-4, (0.9, 0.95), 576  # measured at this width; less for wider models
GUARD = 0.5  # weight of the guard text in the loss
WARMUP, LAST_RATE = 5, 0.1  # steps, and the share of the rates at the last one
TINY = 1e-12


@dataclass(frozen=True)
class Target:
    """A lesson and the original model's hidden states at its positions [positions, width]."""

    lesson: Lesson
    states: "torch.Tensor"


@dataclass(frozen=True)
class GuardText:
    """The ids of a guard text and the original model's hidden states on all but the first [ids - 1, width]."""

    ids: list[int]
    states: "torch.Tensor"


class Student:
    """The rows of new tokens R = start + features x map + own, and the `parameters` of the first layers.

    Own changes are trained by an Adam that moves only the rows of a step, so that rare tokens are not moved by momentum.
    """

    def __init__(
        self,
        first: FirstLayers,
        embedding: "torch.Tensor",
        start: "torch.Tensor",
        features: "torch.Tensor",
        parameters: Sequence["torch.nn.Parameter"],
        spread: "torch.Tensor",
        steps: int,
    ) -> None:
        import torch

        self.first, self.embedding, self.start, self.features = first, embedding, start, features
        self.spread, self.steps, self.done = spread, steps, 0
        self.parameters = list(parameters)
        self.map = torch.nn.Parameter(torch.zeros(features.shape[1], start.shape[1]))
        self.own, self.moment = torch.zeros_like(start), torch.zeros_like(start)
        self.square, self.count = torch.zeros(len(start), 1), torch.zeros(len(start), 1)
        self.map_optimizer = torch.optim.Adam([self.map], MAP_RATE, MAP_BETAS)
        width = spread.shape[0]
        self.layer_rate = LAYER_RATE * min(1.0, LAYER_WIDTH / width)
        self.layer_optimizer = (
            torch.optim.Adam(self.parameters, self.layer_rate, LAYER_BETAS) if self.parameters else None
        )
        self.own_rate = OWN_RATE * float(embedding.float().std())

    def rows(self) -> "torch.Tensor":
        """All new rows [n, width]."""
        return (self.start + self.features.float() @ self.map.detach() + self.own).detach()

    def step(self, targets: Sequence[Target], guard: GuardText | None) -> float:
        """Take one step; returns the loss at the new boundaries, a share of the variance of the states."""
        import torch

        ids = _padded([target.lesson.new for target in targets])
        n_old = len(self.embedding)
        met, places = torch.unique(ids[ids >= n_old] - n_old, return_inverse=True)
        own = self.own[met].requires_grad_()
        new = self.start[met] + self.features[met].float() @ self.map + own
        rows = self.embedding[ids.clamp(max=n_old - 1)].float()
        rows = rows.masked_scatter((ids >= n_old)[..., None].expand_as(rows), new[places])
        loss = self._loss(rows, [target.lesson.at_new for target in targets], [t.states for t in targets])
        total = loss
        if guard is not None and self.parameters:
            rows = self.embedding[torch.tensor([guard.ids])].float()
            total = loss + GUARD * self._loss(rows, [list(range(1, len(guard.ids)))], [guard.states])
        torch.autograd.backward(total)
        assert own.grad is not None
        self._move(met, own.grad)
        return float(loss.detach())

    def error(self, targets: Sequence[Target]) -> float:
        """The mean loss at the new boundaries."""
        import torch

        n_old, rows = len(self.embedding), self.rows()
        losses = []
        with torch.no_grad():
            for target in targets:
                ids = torch.tensor([target.lesson.new])
                mixed = torch.where(
                    (ids >= n_old)[..., None],
                    rows[(ids - n_old).clamp(min=0)],
                    self.embedding[ids.clamp(max=n_old - 1)].float(),
                )
                losses.append(float(self._loss(mixed, [target.lesson.at_new], [target.states])))
        return sum(losses) / len(losses)

    def _loss(
        self, rows: "torch.Tensor", at: Sequence[Sequence[int]], targets: "Sequence[torch.Tensor]"
    ) -> "torch.Tensor":
        import torch

        with bf16_products():
            states = self.first.states(rows)[self.first.depth]
        known = torch.cat([text[list(places)] for text, places in zip(states, at, strict=True)]).float()
        loss: torch.Tensor = ((known - torch.cat(list(targets))) / self.spread).square().mean()
        return loss

    def _move(self, met: "torch.Tensor", gradient: "torch.Tensor") -> None:
        import torch

        scale = min(1.0, (self.done + 1) / WARMUP) * max(LAST_RATE, 1 - self.done / self.steps)
        first, second = OWN_BETAS
        self.count[met] += 1
        count = self.count[met]
        self.moment[met] = self.moment[met] * first + (1 - first) * gradient
        self.square[met] = self.square[met] * second + (1 - second) * gradient.square().mean(1, keepdim=True)
        size = (self.square[met] / (1 - second**count)).sqrt() + TINY
        self.own[met] -= self.own_rate * scale * self.moment[met] / (1 - first**count) / size
        _set_rate(self.map_optimizer, MAP_RATE * scale)
        self.map_optimizer.step()
        self.map_optimizer.zero_grad()
        if self.layer_optimizer is not None:
            torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
            _set_rate(self.layer_optimizer, self.layer_rate * scale)
            self.layer_optimizer.step()
            self.layer_optimizer.zero_grad()
        self.done += 1

    def state(self) -> dict[str, Any]:
        """Everything that changes, for a checkpoint."""
        return {
            "done": self.done,
            "map": self.map.detach(),
            "own": self.own, "moment": self.moment, "square": self.square, "count": self.count,
            "parameters": [parameter.detach() for parameter in self.parameters],
            "map_optimizer": self.map_optimizer.state_dict(),
            "layer_optimizer": None if self.layer_optimizer is None else self.layer_optimizer.state_dict(),
        }  # fmt: skip

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from a state."""
        import torch

        self.done = int(state["done"])
        with torch.no_grad():
            self.map.copy_(state["map"])
            for name in ("own", "moment", "square", "count"):
                getattr(self, name).copy_(state[name])
            for parameter, value in zip(self.parameters, state["parameters"], strict=True):
                parameter.copy_(value)
        self.map_optimizer.load_state_dict(state["map_optimizer"])
        if self.layer_optimizer is not None:
            self.layer_optimizer.load_state_dict(state["layer_optimizer"])


def _padded(lists: Sequence[Sequence[int]]) -> "torch.Tensor":
    import torch

    width = max(map(len, lists))
    return torch.tensor([[*row, *[0] * (width - len(row))] for row in lists])


def _set_rate(optimizer: Any, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate
