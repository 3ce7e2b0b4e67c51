"""The optimizer and the average of the weights by themselves: options, gradients that are scaled, state in and out."""

import copy
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor

from err_seg.engine import TrainingError, build_optimizer
from err_seg.engine.optimizer import (
    WeightAverage,
    clip_before_step,
    gather_optimizer_state,
    lr_factor,
    restore_optimizer_state,
    shared_like,
    whole,
)


@pytest.fixture
def mesh():
    """A mesh of one process, over which tensors are divided as over many."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    dist.destroy_process_group()


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 2))


def step(model, optimizer, seed):
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)
    optimizer.step()


def test_options_are_the_configurations(toy_cfg):
    cfg = toy_cfg("SOLVER.BETAS", [0.5, 0.75], "SOLVER.EPS", 0.125)
    defaults = build_optimizer(network(), cfg).defaults
    assert (defaults["betas"], defaults["eps"], defaults["fused"]) == ((0.5, 0.75), 0.125, None)


def test_scaled_gradients_are_divided_before_they_are_clipped(toy_cfg):
    clip = toy_cfg("SOLVER.CLIP_GRADIENTS.CLIP_TYPE", "value", "SOLVER.CLIP_GRADIENTS.CLIP_VALUE", 1.0)
    parameters = [nn.Parameter(torch.zeros(3)) for _ in range(3)]
    parameters[0].grad, parameters[1].grad = torch.tensor([0.4, -4.0, 40.0]), torch.tensor([8.0, 0.0, 2.0])
    groups = [{"params": parameters[:1]}, {"params": parameters[1:]}]  # the last parameter has no gradient
    optimizer = SimpleNamespace(param_groups=groups, grad_scale=torch.tensor(4.0))
    for _ in range(2):  # the scale is gone after the first time
        clip_before_step(optimizer, clip.SOLVER.CLIP_GRADIENTS)
        assert optimizer.grad_scale is None
        torch.testing.assert_close(parameters[0].grad, torch.tensor([0.1, -1.0, 1.0]))
        torch.testing.assert_close(parameters[1].grad, torch.tensor([1.0, 0.0, 0.5]))
    assert parameters[2].grad is None


def test_state_restored_continues_bit_by_bit_at_the_configurations_rates(toy_cfg):
    slow, fast = toy_cfg("SOLVER.BASE_LR", 0.01), toy_cfg("SOLVER.BASE_LR", 0.1)
    straight = network()
    optimizer = build_optimizer(straight, slow)
    for seed in range(3):
        step(straight, optimizer, seed)
    state = copy.deepcopy(gather_optimizer_state(optimizer))
    assert state.keys() == {name for name, _ in straight.named_parameters()}
    assert all(set(entries) == {"step", "exp_avg", "exp_avg_sq"} for entries in state.values())

    resumed = network(1)
    resumed.load_state_dict(straight.state_dict())
    other = build_optimizer(resumed, fast)
    restore_optimizer_state(other, state)
    assert {group["lr"] for group in other.param_groups} == {0.1}
    for group in (*optimizer.param_groups, *other.param_groups):
        group["lr"] = 0.05
    for seed in (7, 8):
        step(straight, optimizer, seed)
        step(resumed, other, seed)
    for own, theirs in zip(straight.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(own, theirs)


def test_parameters_that_have_not_been_stepped_have_no_state(toy_cfg):
    model = network()
    optimizer = build_optimizer(model, toy_cfg())
    untouched = gather_optimizer_state(optimizer)
    assert untouched == {name: {} for name, _ in model.named_parameters()}
    restore_optimizer_state(optimizer, untouched)
    restore_optimizer_state(optimizer, {})
    assert not optimizer.state

    model[0].weight.grad = torch.ones(4, 3)
    optimizer.step()
    fresh = build_optimizer(model, toy_cfg())
    restore_optimizer_state(fresh, gather_optimizer_state(optimizer))
    assert list(fresh.state) == [model[0].weight]
    assert torch.equal(fresh.state[model[0].weight]["exp_avg"], optimizer.state[model[0].weight]["exp_avg"])


def test_state_of_other_parameters_is_refused(toy_cfg):
    model = network()
    state = gather_optimizer_state(build_optimizer(model, toy_cfg()))
    model[0].weight.requires_grad_(False)
    state["2.other"] = state.pop("2.bias")
    with pytest.raises(TrainingError, match=r"3 parameters train .* such as 0\.weight; resume with .*_TUNING"):
        restore_optimizer_state(build_optimizer(model, toy_cfg()), state)


@pytest.mark.parametrize("placement", [Shard(0), Replicate()])
def test_tensors_are_divided_like_their_parameter_and_put_together_again(mesh, placement):
    parameter = distribute_tensor(torch.zeros(4, 3), mesh, [placement])
    value, number = torch.arange(12.0).view(4, 3), torch.tensor(5.0)
    shared = shared_like(value, parameter)
    assert isinstance(shared, DTensor)
    assert shared.placements == (placement,)
    assert shared.device_mesh == mesh
    assert not isinstance(whole(shared), DTensor)
    assert torch.equal(whole(shared), value)
    assert shared_like(number, parameter) is number  # of another shape: how often it was stepped
    assert shared_like(value, torch.zeros(4, 3)) is value
    assert whole(value) is value


def test_optimizer_and_average_of_divided_parameters_are_those_of_whole_ones(mesh, toy_cfg):
    plain, divided = network(), network()
    for module in divided.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            setattr(module, name, nn.Parameter(distribute_tensor(parameter.data, mesh, [Shard(0)])))
    states, averages = [], []
    for model in (plain, divided):
        optimizer, average = build_optimizer(model, toy_cfg("SOLVER.BASE_LR", 0.1)), WeightAverage(model, 0.75)
        for parameter in model.parameters():
            gradient = torch.linspace(-1, 1, parameter.numel()).view(parameter.shape)
            parameter.grad = shared_like(gradient, parameter)
        optimizer.step()
        average.update()
        restore_optimizer_state(optimizer, gather_optimizer_state(optimizer))
        average.restore(average.state())
        states.append(gather_optimizer_state(optimizer))
        averages.append(average.state())
    assert all(isinstance(value["exp_avg"], DTensor) for value in optimizer.state.values())
    torch.testing.assert_close(states[0], states[1], rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(averages[0], averages[1], rtol=1e-6, atol=1e-7)
    assert not any(isinstance(value, DTensor) for value in (*averages[1].values(), states[1]["0.weight"]["exp_avg"]))


def test_average_of_what_trains():
    model = network()
    model[1].weight.requires_grad_(False)
    start = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    average = WeightAverage(model, decay=0.75)
    assert average.state().keys() == start.keys() - {"1.weight"}
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)
    torch.testing.assert_close(average.state(), {name: start[name] for name in average.state()})  # of its own memory
    average.update()
    torch.testing.assert_close(average.state(), {name: start[name] + 0.25 for name in average.state()})
    average.update()
    torch.testing.assert_close(average.state(), {name: start[name] + 0.4375 for name in average.state()})

    saved = {name: value.clone() for name, value in average.state().items()}
    other = WeightAverage(model, decay=0.75)
    other.restore({})
    torch.testing.assert_close(other.state(), {name: start[name] + 1 for name in saved})
    other.restore(saved)
    other.update()
    average.update()
    torch.testing.assert_close(other.state(), average.state(), rtol=0, atol=0)


def test_warm_up_ends_at_its_iteration_and_may_be_left_out(toy_cfg):
    base = ("SOLVER.MAX_ITER", 100, "SOLVER.WARMUP_ITERS", 10)
    for name in ("WarmupCosineLR", "WarmupPolyLR"):
        curve = (*base, "SOLVER.LR_SCHEDULER_NAME", name, "SOLVER.WARMUP_FACTOR")
        low, high = toy_cfg(*curve, 0.001), toy_cfg(*curve, 0.3)
        assert [lr_factor(i, low) for i in range(10, 101)] == [lr_factor(i, high) for i in range(10, 101)]
        assert all(lr_factor(i, low) < lr_factor(i, high) for i in range(10))
        assert lr_factor(0, toy_cfg(*curve, 0.3, "SOLVER.WARMUP_ITERS", 0)) == 1
        short = toy_cfg(*curve, 0.5, "SOLVER.WARMUP_ITERS", 1000)  # longer than the run
        assert lr_factor(0, short) == 0.5
        assert lr_factor(100, short) == 0
    held = toy_cfg(*base, "SOLVER.LR_SCHEDULER_NAME", "WarmupPolyLR", "SOLVER.POLY_LR_CONSTANT_ENDING", 0.95)
    assert lr_factor(9, held) < 0.95
    assert lr_factor(10, held) == 0.95
