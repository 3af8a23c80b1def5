import torch
from torch import Tensor, nn

from export.quiet import quiet_torch
from export.simplify import simplify

aten = torch.ops.aten


class Neutral(nn.Module):
    def forward(self, x: Tensor, positions: Tensor) -> tuple[Tensor, ...]:
        ones, zeros = torch.ones_like(x), torch.zeros_like(x)
        nothing = (ones * x * 1.0 + zeros - 0.0) ** 1.0
        shaped = x[:1] * torch.ones(3)
        cast = positions * 1.0
        kept = zeros - x + 2.0
        broadcast = x.sum().expand(3) + x
        jointly = x.unsqueeze(1).expand(3, 2) * x[:2]
        needed = x.unsqueeze(1).expand(3, 2) * x[:1]
        return nothing, shaped, cast, kept, broadcast, jointly, needed


def test_neutral_elements_go_and_results_stay() -> None:
    inputs = (torch.tensor([1.5, -2.0, 3.0]), torch.arange(3))
    with quiet_torch():
        program = torch.export.export(Neutral(), inputs).run_decompositions()
        before = program.module()(*inputs)
    simplify(program.graph)
    program.graph_module.recompile()
    with quiet_torch():
        after = program.module()(*inputs)
    for result, expected in zip(after, before, strict=True):
        torch.testing.assert_close(result, expected, rtol=0, atol=0)
    left = [n.target for n in program.graph.nodes if n.op == "call_function"]
    # Left are what changes a shape or a dtype, and the sums that are not neutral.
    assert left.count(aten.mul.Tensor) == 4
    assert left.count(aten.add.Tensor) == 2
    assert left.count(aten.sub.Tensor) == 1
    # One copy is what gives a product its shape.
    assert left.count(aten.expand.default) == 1
    assert aten.pow.Tensor_Scalar not in left
