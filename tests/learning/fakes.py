"""Small stand-ins for timm and torchxrayvision, with the parts of them that we use.

The tests of both run against these everywhere, and against the real packages where those are installed.
"""

from __future__ import annotations

from types import ModuleType, SimpleNamespace

import torch
from torch import Tensor, nn


class DropPath(nn.Module):
    def __init__(self, drop_prob: float) -> None:
        super().__init__()
        self.drop_prob = drop_prob

    def forward(self, values: Tensor) -> Tensor:
        if not self.training or not self.drop_prob:
            return values
        kept = torch.rand(len(values), *[1] * (values.ndim - 1)) >= self.drop_prob
        return values * kept / (1 - self.drop_prob)


class Convolutions(nn.Module):
    """Two residual blocks and a mean; ``NHWC`` turns the last feature map."""

    num_features = 8

    def __init__(self, drop_path_rate: float = 0.0, output_fmt: str = "NCHW") -> None:
        super().__init__()
        self.output_fmt = output_fmt
        self.stem = nn.Conv2d(3, 8, 3, 2, 1)
        self.blocks = nn.Sequential(*(nn.Sequential(nn.Conv2d(8, 8, 3, 1, 1), nn.BatchNorm2d(8)) for _ in range(2)))
        self.drops = nn.ModuleList(
            DropPath(drop_path_rate * number) if drop_path_rate else nn.Identity() for number in (0.5, 1)
        )
        self.turn = Turn() if output_fmt == "NHWC" else nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        values = self.stem(images)
        for block, drop in zip(self.blocks, self.drops, strict=True):
            values = values + drop(block(values))
        values = self.turn(values)
        return values.mean((1, 2) if self.output_fmt == "NHWC" else (2, 3))


class StdConv2d(nn.Conv2d):
    """A convolution whose filters have mean 0 and variance 1 over channels and places when they are used."""

    def forward(self, images: Tensor) -> Tensor:
        spread, mean = torch.std_mean(self.weight, (1, 2, 3), keepdim=True)
        weight = (self.weight - mean) / (spread + 1e-6)
        return nn.functional.conv2d(images, weight, self.bias, self.stride, self.padding)


class Turn(nn.Module):
    def forward(self, values: Tensor) -> Tensor:
        return values.permute(0, 2, 3, 1)


class Tokens(nn.Module):
    """Patches of 16 pixels with a class token and a position table."""

    num_features, num_prefix_tokens, no_embed_class, output_fmt = 8, 1, False, "NLC"

    def __init__(self, img_size: int = 160) -> None:
        super().__init__()
        side = img_size // 16
        self.patch_embed = nn.Conv2d(3, 8, 16, 16)
        self.patch_embed.grid_size = (side, side)
        self.cls_token = nn.Parameter(torch.randn(1, 1, 8))
        self.pos_embed = nn.Parameter(torch.randn(1, side**2 + 1, 8))
        self.blocks = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))

    def forward(self, images: Tensor) -> Tensor:
        patches = self.patch_embed(images).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.cls_token.expand(len(images), -1, -1), patches], 1) + self.pos_embed
        return self.blocks(tokens)[:, 0]


def resample_abs_pos_embed(table: Tensor, new: list[int], old: list[int], prefix: int) -> Tensor:
    places = table[:, prefix:].reshape(1, *old, -1).permute(0, 3, 1, 2)
    places = nn.functional.interpolate(places, size=new, mode="bicubic", antialias=True)
    return torch.cat([table[:, :prefix], places.permute(0, 2, 3, 1).flatten(1, 2)], 1)


def timm() -> ModuleType:
    """Return a module with a few models of every kind that matters to us."""
    module = ModuleType("timm")

    def settings(name: str) -> SimpleNamespace | None:
        mean = {"tokens": (0.5, 0.5, 0.5), "nhwc": (0.1, 0.2, 0.3)}.get(name, (0.485, 0.456, 0.406))
        deviation = (0.5, 0.5, 0.5) if name == "tokens" else (0.229, 0.224, 0.225)
        return SimpleNamespace(
            mean=mean, std=deviation, fixed_input_size=name == "tokens", classifier="head", hf_hub_id=f"timm/{name}",
            url="", architecture=name, tag="a1", has_weights=name != "swallows",
        )  # fmt: skip

    def create_model(name: str, *, pretrained: bool = False, num_classes: int, **settings: float) -> nn.Module:
        assert num_classes == 0
        if name == "strict" and settings:
            raise TypeError("Strict.__init__() got an unexpected keyword argument 'drop_path_rate'")
        if name == "tokens":
            return Tokens(**settings)
        if name in ("swallows", "strict"):  # takes the argument and does nothing with it
            return Convolutions()
        if name == "nhwc":  # as timm's Swin, it drops where nobody asked for it
            return Convolutions(**{"drop_path_rate": 0.1} | settings, output_fmt="NHWC")
        model = Convolutions(**settings)
        if name == "standardised":
            model.stem = StdConv2d(3, 8, 3, 2, 1)
        return model

    names = ["conv", "nhwc", "standardised", "strict", "swallows", "tokens"]
    module.__version__ = "0.0"
    module.list_models = lambda: names
    module.is_model = lambda name: name.split(".")[0] in names
    module.get_pretrained_cfg = settings
    module.create_model = create_model
    module.layers = ModuleType("timm.layers")
    module.layers.DropPath = DropPath
    module.layers.resample_abs_pos_embed = resample_abs_pos_embed
    return module


def torchxrayvision(folder: str) -> ModuleType:
    """Return a module whose weights lie in ``folder``: whole pickled networks there, our state dicts here."""
    from torchvision.models import densenet121, resnet50

    module = ModuleType("torchxrayvision")
    labels = ["Atelectasis", "", "Effusion", "Pneumonia", "Lung Opacity"]
    module.utils = SimpleNamespace(get_cache_dir=lambda: folder)
    module.models = SimpleNamespace(
        model_urls={
            name: {"weights_url": f"https://example.org/{name}.pt", "labels": labels}
            for name in ("all", "densenet121-res224-all", "densenet121-res224-chex", "resnet50-res512-all")
        }
    )

    def read(name: str, model: nn.Module) -> nn.Module:
        first = "conv1" if name.startswith("resnet") else "features.conv0"
        convolution = model.get_submodule(first)
        convolution.weight = nn.Parameter(convolution.weight.detach()[:, :1])
        model.load_state_dict(torch.load(f"{folder}/{name}.pt", weights_only=True))
        model.register_buffer("op_threshs", torch.zeros(len(labels)))
        return model

    module.models.DenseNet = lambda weights: read(weights, densenet121(num_classes=len(labels)))
    module.models.ResNet = lambda weights: SimpleNamespace(model=read(weights, resnet50(num_classes=len(labels))))
    return module
