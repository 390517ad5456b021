"""One untrained ViT-B/32 as files: for open_clip, and the same weights for transformers."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

ARCHITECTURE = "ViT-B-32"
Weights = dict[str, Any]
BLOCK = {  # open_clip's names in a block -> transformers'
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}


def open_clip_folder(folder: Path) -> Path:
    """A folder that open_clip loads as local-dir, made once with seed 0."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    if not (folder / "open_clip_config.json").exists():
        folder.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(0)
        model = open_clip.create_model(ARCHITECTURE)
        model.logit_scale.data.fill_(math.log(100))  # which Data-Juicer takes for granted
        save_file(model.state_dict(), folder / "open_clip_model.safetensors")
        config = {"model_cfg": open_clip.get_model_config(ARCHITECTURE)}
        (folder / "open_clip_config.json").write_text(json.dumps(config))
    return folder


def hugging_face_folder(folder: Path, source: Path) -> Path:
    """A folder that CLIPModel and CLIPProcessor load, with the weights of `source`."""
    from safetensors.torch import load_file
    from transformers import CLIPConfig, CLIPModel

    if not (folder / "merges.txt").exists():
        config = CLIPConfig()  # ViT-B/32
        for tower in (config.text_config, config.vision_config):
            tower.hidden_act = "gelu"
        model = CLIPModel(config).eval()
        weights = renamed(load_file(source / "open_clip_model.safetensors"))
        lacking, unknown = model.load_state_dict(weights, strict=False)
        if unknown or any("position_ids" not in name for name in lacking):
            raise ValueError(f"weights do not match: {lacking} lack, {unknown} are unknown")
        model.save_pretrained(folder)
        _write_processor(folder)
    return folder


def renamed(state: Mapping[str, Tensor]) -> Weights:
    """open_clip's state in transformers' names; the joint projections are cut into three."""
    found: Weights = {
        "logit_scale": state["logit_scale"],
        "text_projection.weight": state["text_projection"].T.contiguous(),
        "visual_projection.weight": state["visual.proj"].T.contiguous(),
        "text_model.embeddings.token_embedding.weight": state["token_embedding.weight"],
        "text_model.embeddings.position_embedding.weight": state["positional_embedding"],
        "vision_model.embeddings.class_embedding": state["visual.class_embedding"],
        "vision_model.embeddings.patch_embedding.weight": state["visual.conv1.weight"],
        "vision_model.embeddings.position_embedding.weight": state["visual.positional_embedding"],
    }
    norms = {
        "ln_final": "text_model.final_layer_norm",
        "visual.ln_pre": "vision_model.pre_layrnorm",
        "visual.ln_post": "vision_model.post_layernorm",
    }
    for ours, theirs in norms.items():
        found |= {f"{theirs}.{end}": state[f"{ours}.{end}"] for end in ("weight", "bias")}
    for name, value in state.items():
        prefix, _, rest = name.partition("transformer.resblocks.")
        if rest:
            number, _, inner = rest.partition(".")
            tower = "vision_model" if prefix else "text_model"
            found |= _block(f"{tower}.encoder.layers.{number}", inner, value)
    return found


def _block(layer: str, inner: str, value: Tensor) -> Weights:
    if inner.startswith("attn.in_proj_"):
        end = inner.removeprefix("attn.in_proj_")
        parts = zip("qkv", value.chunk(3), strict=True)
        return {f"{layer}.self_attn.{p}_proj.{end}": part.clone() for p, part in parts}
    name, _, end = inner.rpartition(".")
    return {f"{layer}.{BLOCK[name]}.{end}": value}


def _write_processor(folder: Path) -> None:
    """The tokenizer's files and the image processor's, from what open_clip brings."""
    from open_clip.tokenizer import SimpleTokenizer

    tokenizer = SimpleTokenizer()
    special = {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}
    vocabulary = {special.get(token, token): at for token, at in tokenizer.encoder.items()}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    merges = sorted(tokenizer.bpe_ranks, key=tokenizer.bpe_ranks.__getitem__)
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(map(" ".join, merges)) + "\n")
    ends = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>"}
    rest = {"unk_token": "<|endoftext|>", "pad_token": "<|endoftext|>", "model_max_length": 77}
    told = {"tokenizer_class": "CLIPTokenizer", **ends, **rest}
    (folder / "tokenizer_config.json").write_text(json.dumps(told))
    image = {
        "image_processor_type": "CLIPImageProcessor",
        "feature_extractor_type": "CLIPFeatureExtractor",
        "processor_class": "CLIPProcessor",
        "size": {"shortest_edge": 224},
        "crop_size": {"height": 224, "width": 224},
        "resample": 3,
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711],
    }
    for step in ("convert_rgb", "resize", "center_crop", "rescale", "normalize"):
        image[f"do_{step}"] = True
    (folder / "preprocessor_config.json").write_text(json.dumps(image))
