import pytest
import torch

from core_dd.errors import InputError
from core_dd.sets.subset import centroids, herding, k_center, medoids


@pytest.fixture
def features(generator):
    return torch.randn(60, 5, generator=generator)


def test_herding__first_pick_is_nearest_the_mean(features):
    assert herding(features, 1).item() == (features - features.mean(0)).norm(dim=1).argmin().item()


def test_herding__equals_a_plain_loop(features):
    mean, picked = features.mean(0), []
    for k in range(12):
        best = min(
            (i for i in range(60) if i not in picked),
            key=lambda i: float(
                ((k + 1) * mean - sum((features[j] for j in picked), torch.zeros(5)) - features[i]).norm()
            ),
        )
        picked.append(best)
    assert herding(features, 12).tolist() == picked


def test_herding__mean_is_closer_than_a_random_choice(features, generator):
    def gap(index):
        return (features[index].mean(0) - features.mean(0)).norm()

    random = torch.stack([gap(torch.randperm(60, generator=generator)[:10]) for _ in range(100)])
    assert gap(herding(features, 10)) < random.min()


def test_k_center__takes_the_outliers():
    line = torch.tensor([[0.0], [0.1], [-0.1], [5.0], [-9.0]])
    assert k_center(line, 3).tolist()[1:] in ([4, 3], [3, 4])


def test_k_center__never_twice_even_among_equal_points():
    assert sorted(k_center(torch.zeros(4, 2), 4).tolist()) == [0, 1, 2, 3]


def test_medoids__one_of_each_cluster(generator):
    centres = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])
    points = centres.repeat_interleave(20, 0) + 0.1 * torch.randn(60, 2, generator=generator)
    assert sorted((medoids(points, 3, seed=0) // 20).tolist()) == [0, 1, 2]


def test_centroids__are_the_means_of_the_clusters_largest_first(generator):
    sizes = torch.tensor([10, 30, 20])
    centres = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])
    points = centres.repeat_interleave(sizes, 0) + 0.1 * torch.randn(60, 2, generator=generator)
    first, second, third = points.split(sizes.tolist())
    expected = torch.stack([own.mean(0) for own in (second, third, first)])
    torch.testing.assert_close(centroids(points, 3, seed=0), expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(centroids(points, 1, seed=0), points.mean(0)[None], atol=1e-5, rtol=0)
    with pytest.raises(InputError, match="cannot choose 61 of 60"):
        centroids(points, 61, seed=0)


@pytest.mark.parametrize("choose", [herding, k_center, lambda f, n: medoids(f, n, seed=0)])
def test_all__distinct_and_complete(features, choose):
    assert sorted(choose(features, 60).tolist()) == list(range(60))
    with pytest.raises(InputError, match="cannot choose 61 of 60"):
        choose(features, 61)
    with pytest.raises(InputError, match="cannot choose 0 of 60"):
        choose(features, 0)
