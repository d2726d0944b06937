"""A trained U-ViT as a diffusers pipeline: labels in, images out."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from diffusers.utils import BaseOutput
from PIL import Image
from torch import Tensor

from core_dd.errors import require
from gen_dd import consistency
from gen_dd.solvers import ExactDPMSolver, guided
from gen_dd.uvit import UViT


@dataclass
class UViTPipelineOutput(BaseOutput):
    """What the pipeline returns.

    Attributes:
        images: a list of PIL images; or float32 on the 0..1 scale, a numpy array (N, H, W, C) or a tensor (N, C, H, W).
    """

    images: list[Image.Image] | np.ndarray | Tensor


class UViTPipeline(DiffusionPipeline):
    """Draws images of given classes from a U-ViT.

    The folder of a trained model is one of these: `UViTPipeline.from_pretrained(folder)`, or
    `DiffusionPipeline.from_pretrained(folder, custom_pipeline="pipeline", trust_remote_code=True)`, where the code to
    be trusted is the folder's pipeline.py: the import of this class. To share it, upload that folder as it is, with its
    card: `hf upload NAME/MODEL FOLDER`, or `huggingface_hub.HfApi().upload_folder`; `push_to_hub`, which diffusers
    brings, uploads the components alone.

    Args:
        unet: a class-conditional `UViT`.
        scheduler: what turns noise into images.
    """

    model_cpu_offload_seq = "unet"  # type: ignore[assignment]  # diffusers says None and means a string
    unet: UViT
    scheduler: ExactDPMSolver

    def __init__(self, unet: UViT, scheduler: ExactDPMSolver) -> None:
        super().__init__()
        self.register_modules(unet=unet, scheduler=scheduler)

    @torch.no_grad()
    def __call__(
        self,
        class_labels: int | Sequence[int] | Tensor,
        *,
        guidance_scale: float = 1.0,
        num_inference_steps: int | None = None,
        generator: torch.Generator | list[torch.Generator] | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
    ) -> UViTPipelineOutput | tuple:
        """One image for every label.

        Args:
            class_labels: labels in 0..K-1, one or (N,).
            guidance_scale: w of classifier-free guidance null + w (cond - null), as diffusers counts; 1 is off.
            num_inference_steps: network evaluations per image; default: 50, of a consistency model 2.
            generator: of the noise, one for all images or one for each.
            output_type: "pil", "np" or "pt".
            return_dict: a `UViTPipelineOutput`, or a tuple with the images alone.

        Raises:
            InputError: a label out of range, a weight below 1, or above it where the model never learnt without labels,
                an unknown output type.
        """
        device = self._execution_device  # the model's, or where offloading will move it
        labels = torch.as_tensor(class_labels).reshape(-1).long().to(device)
        classes = self.unet.config.num_classes
        require(classes is not None, "the model takes no labels; train one with classes.")
        require(
            len(labels) > 0 and bool((labels >= 0).all() and (labels < classes).all()),
            f"class_labels must be from 0 to {classes - 1}, got {labels.tolist()[:10]}.",
        )
        require(guidance_scale >= 1, f"guidance_scale must be >= 1 (1 is off), got {guidance_scale}.")
        self.unet.check_guidance(guidance_scale - 1)
        require(output_type in ("pil", "np", "pt"), f"output_type must be pil, np or pt, got '{output_type}'.")

        config = self.unet.config
        shape = (len(labels), config.in_channels, config.image_size, config.image_size)
        x = _noise(shape, generator).to(device, self.unet.dtype)
        noise_of = guided(self.unet, labels, guidance_scale - 1, classes)
        if config.consistency:
            steps = 2 if num_inference_steps is None else num_inference_steps
            x = consistency.sample(noise_of, x, steps, lambda number: _noise(shape, generator).to(x))
        else:
            self.scheduler.set_timesteps(50 if num_inference_steps is None else num_inference_steps, device=device)
            for timestep in self.progress_bar(self.scheduler.timesteps):
                x = self.scheduler.step(noise_of(x, timestep), timestep, x, return_dict=False)[0]
        self.maybe_free_model_hooks()

        images: Any = ((x.float() + 1) / 2).clamp(0, 1).cpu()
        if output_type != "pt":
            images = images.permute(0, 2, 3, 1).numpy()
        if output_type == "pil":
            images = [_pil(image) for image in images]
        return UViTPipelineOutput(images=images) if return_dict else (images,)


def _noise(shape: tuple[int, ...], generator: torch.Generator | list[torch.Generator] | None) -> Tensor:
    """Standard normal (N, C, H, W), drawn where the generator lives.

    Raises:
        InputError: a list of generators of another length than N.
    """
    if not isinstance(generator, list):
        device = "cpu" if generator is None else generator.device
        return torch.randn(shape, generator=generator, device=device)
    require(len(generator) == shape[0], f"there are {len(generator)} generators for {shape[0]} images.")
    return torch.stack([torch.randn(shape[1:], generator=each, device=each.device) for each in generator])


def _pil(image: np.ndarray) -> Image.Image:
    """One image (H, W, C), C 1 or 3, on the 0..1 scale."""
    levels = (image * 255).round().astype(np.uint8)
    return Image.fromarray(levels[..., 0] if levels.shape[-1] == 1 else levels)
