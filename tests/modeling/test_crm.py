"""CRM against a brute-force reading of its definition."""

import itertools

import pytest
import torch

from err_seg.modeling.crm import CRM, count_class_pixels, kept_class_labels


def brute_force_scores(cost, weights):
    """One image's class scores, pixel by pixel: cost (T, H, W)."""
    scores = [0.0] * cost.shape[0]
    for y, x in itertools.product(range(cost.shape[1]), range(cost.shape[2])):
        ranking = sorted(range(cost.shape[0]), key=lambda t: -float(cost[t, y, x]))
        for weight, winner in zip(weights, ranking, strict=False):
            scores[winner] += weight
    return torch.tensor(scores)


@pytest.mark.parametrize(("num_ranks", "rank_decay"), [(1, 0.1), (3, 0.1), (5, 0.5), (3, 1.0), (3, 0.0), (20, 0.9)])
@pytest.mark.parametrize("parts", [9, 4, 1])
def test_scores_and_choice(num_ranks, rank_decay, parts):
    cost = torch.randn(2, 9, 4, 5, generator=torch.Generator().manual_seed(num_ranks))
    kept, scores = CRM(num_ranks=num_ranks, rank_decay=rank_decay)(cost.split(parts, dim=1), 4)
    for image in range(2):
        expected = brute_force_scores(cost[image], [rank_decay**r for r in range(num_ranks)])
        torch.testing.assert_close(scores[image], expected, rtol=1e-5, atol=1e-5)
        best = expected.sort(descending=True, stable=True).indices[:4].sort().values
        assert torch.equal(kept[image], best)


def test_fewer_classes_than_kept_or_than_ranks():
    kept, scores = CRM(num_ranks=3)([torch.randn(2, 2, 3, 3)], 16)
    assert kept.tolist() == [[0, 1], [0, 1]]
    torch.testing.assert_close(scores.sum(dim=1), torch.full((2,), 9 * 1.1))


def test_ties_go_to_the_lower_index():
    kept, _ = CRM(num_ranks=1)([torch.zeros(1, 6, 1, 1).index_fill(1, torch.tensor([4]), 1.0)], 3)
    assert kept.tolist() == [[0, 1, 4]]


def test_present_classes_come_first_in_training():
    cost = torch.zeros(1, 6, 4, 4)
    cost[0, 5], cost[0, 4], cost[0, 3] = 3, 2, 1  # scores favour 5, 4, 3
    pixels = torch.tensor([[2, 0, 1, 0, 0, 0]])
    kept, _ = CRM()([cost], 4, pixels)
    assert kept.tolist() == [[0, 2, 4, 5]]


@pytest.mark.parametrize("rank_decay", [0.1, 1.0, 10.0])
def test_present_classes_come_first_whatever_the_weights(rank_decay):
    cost = torch.arange(5, 0, -1.0).view(1, 5, 1, 1).expand(1, 5, 4, 4)  # at every pixel the ranking is 0, 1, 2, 3, 4
    kept, scores = CRM(num_ranks=3, rank_decay=rank_decay)([cost], 1, torch.tensor([[0, 0, 0, 0, 1]]))
    assert kept.tolist() == [[4]]
    torch.testing.assert_close(scores, 16 * torch.tensor([[1, rank_decay, rank_decay**2, 0, 0]]))


def test_training_and_evaluation_have_numbers_of_their_own():
    crm, cost = CRM(num_kept=2, num_kept_train=3), [torch.randn(1, 6, 4, 4)]
    assert crm.train()(cost)[0].shape == (1, 3)
    assert crm.eval()(cost)[0].shape == (1, 2)
    assert crm(cost, 5)[0].shape == (1, 5)
    assert CRM(num_kept_train=3).eval()(cost)[0].shape == (1, 6)


def test_further_cost_maps_are_read_only_for_a_minimum():
    def unread():
        raise AssertionError("read")
        yield

    cost = torch.randn(1, 4, 2, 2)
    scores = CRM(num_kept=2).eval().score_classes([cost], [unread()])
    torch.testing.assert_close(scores.shares, scores.scores / 4)
    with pytest.raises(AssertionError, match="read"):
        CRM(num_kept=2, min_score=0.1).eval().score_classes([cost], [unread()])


def test_more_present_classes_than_places_keeps_the_most_frequent():
    pixels = torch.tensor([[10, 400_001, 400_000, 3, 0, 7]])
    kept, _ = CRM()([torch.randn(1, 6, 2, 2)], 3, pixels)
    assert kept.tolist() == [[0, 1, 2]]


def test_no_gradient_and_no_parameters():
    crm = CRM()
    cost = torch.randn(1, 5, 2, 2, requires_grad=True)
    assert not crm([cost], 2)[1].requires_grad
    assert list(crm.parameters()) == []


def test_counting_and_renumbering_labels():
    labels = torch.tensor([[[0, 2, 2, 255], [5, 1, -1, 65535]]])
    assert count_class_pixels(labels, 6).tolist() == [[1, 1, 2, 0, 0, 1]]
    places = kept_class_labels(labels, torch.tensor([[1, 2, 5]]), 6)
    assert places.tolist() == [[[-1, 1, 1, -1], [2, 0, -1, -1]]]
