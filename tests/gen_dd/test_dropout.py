import torch

from gen_dd.dropout import KEYS, Dropout


def keys(count, generator):
    return torch.randint(KEYS, (count,), generator=generator, dtype=torch.int32)


def test_dropout__drops_as_often_as_asked_and_keeps_the_mean(generator):
    x, own = torch.ones(100, 10, 64), keys(100, generator)
    for probability in (0.1, 0.5, 0.9):
        found = Dropout(probability, own)(x)
        kept = found != 0
        assert torch.allclose(found[kept], torch.tensor(1 / (1 - probability)))
        for dims, draws in (((0, 1, 2), 64000), ((1, 2), 640), ((0, 1), 1000), ((0, 2), 6400)):
            off = (kept.double().mean(dims) - (1 - probability)).abs().max()
            assert off < 5 * (probability * (1 - probability) / draws) ** 0.5, dims


def test_dropout__masks_of_places_and_of_images_are_unrelated(generator):
    """Also of keys that follow each other; half of the values agree, within five standard deviations."""
    x = torch.ones(50, 20, 64)
    for own in (keys(50, generator), torch.arange(50, dtype=torch.int32)):
        dropout = Dropout(0.5, own)
        masks = [each(x) != 0 for each in (dropout, dropout.at(0), dropout.at(1), dropout.at(1).at(0))]
        masks.append(masks[0].roll(1, 0))
        for i, one in enumerate(masks):
            for other in masks[:i]:
                assert abs((one == other).double().mean() - 0.5) < 5 * 0.5 / one.numel() ** 0.5


def test_dropout__an_image_s_mask_does_not_depend_on_the_others(generator):
    x, own = torch.randn(8, 5, 16, generator=generator), keys(8, generator)
    assert torch.equal(Dropout(0.3, own)(x)[2:5], Dropout(0.3, own[2:5])(x[2:5]))
