"""Tiny random models that see pictures, with tiny processors; nothing is fetched."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
import transformers
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedModel, PreTrainedTokenizerFast

import paceline
from exactness.decoding import Job, PlainRuns
from paceline.drafters import BaseDrafter
from paceline.engine.ports import Target
from paceline.engine.request import Request
from paceline.text.pictures import Pictured
from paceline.text.processor import mark_of

VOCAB = 211
_TEXT = {
    "vocab_size": VOCAB,
    "hidden_size": 64,
    "intermediate_size": 100,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 640,
    "initializer_range": 0.2,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
}
_TOWER = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}


def picture(width: int, height: int, seed: int) -> Image.Image:
    """A picture of noise over a gradient."""
    rng = np.random.default_rng([width, height, seed])
    ramp = np.linspace(0, 255, width)[None, :, None] * rng.random(3)
    return Image.fromarray(np.clip(ramp + rng.normal(0, 40, (height, width, 3)), 0, 255).astype(np.uint8))


def tokenizer(*special: str) -> PreTrainedTokenizerFast:
    """Words w0 to w199 are the tokens 0 to 199; special ones come behind."""
    words = Tokenizer(models.WordLevel({f"w{i}": i for i in range(200)}, unk_token="w0"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    made = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="w0")
    made.add_special_tokens({"additional_special_tokens": list(special)})
    return made


def text(length: int, seed: int) -> str:
    """So many tokens."""
    return " ".join(f"w{i}" for i in np.random.default_rng([length, seed]).integers(0, 200, length))


def _built(model_class: type[PreTrainedModel], config: Any) -> PreTrainedModel:
    torch.manual_seed(0)
    model = model_class._from_config(config, attn_implementation="eager")
    generator = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        scale = 0.2 if parameter.ndim > 1 else 0.1
        with torch.no_grad():
            parameter.add_(scale * torch.randn(parameter.shape, generator=generator) * ("norm" not in name))
    return model.eval()


def llava() -> tuple[PreTrainedModel, Any]:
    config = transformers.LlavaConfig(
        text_config={"model_type": "llama", **_TEXT},
        vision_config={"model_type": "clip_vision_model", **_TOWER, "image_size": 42, "patch_size": 6},
        image_token_index=200,
    )
    reads = transformers.CLIPImageProcessorPil(size={"shortest_edge": 42}, crop_size={"height": 42, "width": 42})
    processor = transformers.LlavaProcessor(
        reads,
        tokenizer("<image>"),
        patch_size=6,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    )
    return _built(transformers.LlavaForConditionalGeneration, config), processor


def gemma3() -> tuple[PreTrainedModel, Any]:
    """Whose pieces of a picture see each other, through windows too, in blocks longer than a page."""
    config = transformers.Gemma3Config(
        text_config={
            **_TEXT,
            "head_dim": 16,
            "query_pre_attn_scalar": 24,
            "sliding_window": 37,
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
        },
        vision_config={**_TOWER, "image_size": 54, "patch_size": 6},
        mm_tokens_per_image=81,
        image_token_id=200,
        boi_token_id=201,
        eoi_token_id=202,
    )
    reads = transformers.Gemma3ImageProcessorPil(size={"height": 54, "width": 54})
    words = tokenizer("<image_soft_token>", "<start_of_image>", "<end_of_image>")
    for name, token in (("image", "<image_soft_token>"), ("boi", "<start_of_image>"), ("eoi", "<end_of_image>")):
        setattr(words, f"{name}_token", token)
        setattr(words, f"{name}_token_id", words.convert_tokens_to_ids(token))
    return _built(transformers.Gemma3ForConditionalGeneration, config), transformers.Gemma3Processor(
        reads, words, image_seq_length=81
    )


class _Gemma4Processor:
    """What transformers' own does with one text, which wants sound and films as well."""

    image_token = "<image>"

    def __init__(self, image_processor: Any, tokenizer: PreTrainedTokenizerFast) -> None:
        self.image_processor, self.tokenizer = image_processor, tokenizer

    def __call__(self, text: list[str], images: list[list[Image.Image]], return_tensors: str) -> dict[str, Any]:
        given = dict(self.image_processor(images[0], return_tensors=return_tensors))
        parts = text[0].split(self.image_token)
        for i, count in enumerate(given.pop("num_soft_tokens_per_image")):
            parts[i] += "<image>" * int(count)
        ids = self.tokenizer(["".join(parts)], return_tensors=return_tensors)
        return {**ids, **given, "mm_token_type_ids": (ids["input_ids"] == 200).long()}


def _gemma4(bidirectional: str | None) -> tuple[PreTrainedModel, Any]:
    config = transformers.Gemma4Config(
        text_config={
            **_TEXT,
            "head_dim": 16,
            "global_head_dim": 16,
            "sliding_window": 37,
            "layer_types": ["sliding_attention", "sliding_attention", "full_attention"],
            "hidden_size_per_layer_input": 8,
            "pad_token_id": 0,
            "vocab_size_per_layer_input": VOCAB,
            "num_kv_shared_layers": 0,
            "use_bidirectional_attention": bidirectional,
        },
        vision_config={**_TOWER, "num_key_value_heads": 2, "head_dim": 16, "patch_size": 4, "pooling_kernel_size": 3},
        audio_config=None,
        image_token_id=200,
    )
    reads = transformers.Gemma4ImageProcessorPil(patch_size=4, max_soft_tokens=70, pooling_kernel_size=3)
    return _built(transformers.Gemma4ForConditionalGeneration, config), _Gemma4Processor(reads, tokenizer("<image>"))


def gemma4() -> tuple[PreTrainedModel, Any]:
    """Which has the code for blocks, and here none; embeddings of tokens enter each layer."""
    return _gemma4(None)


def gemma4_blocks() -> tuple[PreTrainedModel, Any]:
    return _gemma4("vision")


class _PixtralProcessor:
    """What transformers' own does with one text; that one cannot be imported without torchvision."""

    image_token = "[IMG]"

    def __init__(self, image_processor: Any, tokenizer: PreTrainedTokenizerFast) -> None:
        self.image_processor, self.tokenizer = image_processor, tokenizer

    def __call__(self, text: list[str], images: list[list[Image.Image]], return_tensors: str) -> dict[str, Any]:
        given = self.image_processor(images[0], patch_size={"height": 8, "width": 8}, return_tensors=return_tensors)
        parts = text[0].split(self.image_token)
        for i, size in enumerate(given["image_sizes"]):
            height, width = (int(n) // 8 for n in size)
            rows = " [IMG_BREAK] ".join([" ".join(["[IMG]"] * width)] * height)
            parts[i] += f"{rows} [IMG_END]"
        return {**self.tokenizer(["".join(parts)], return_tensors=return_tensors), **given}


def mistral3() -> tuple[PreTrainedModel, Any]:
    config = transformers.Mistral3Config(
        text_config={"model_type": "mistral", **_TEXT, "head_dim": 16},
        vision_config={"model_type": "pixtral", **_TOWER, "head_dim": 16, "image_size": 64, "patch_size": 4},
        image_token_index=200,
        spatial_merge_size=2,
        vision_feature_layer=-1,
    )
    reads = transformers.PixtralImageProcessorPil(size={"longest_edge": 64}, patch_size={"height": 4, "width": 4})
    words = tokenizer("[IMG]", "[IMG_BREAK]", "[IMG_END]")
    processor = _PixtralProcessor(reads, words)
    return _built(transformers.Mistral3ForConditionalGeneration, config), processor


def _qwen(kind: str, tower: dict[str, Any], **text: Any) -> tuple[PreTrainedModel, Any]:
    """Whose rotary positions have three axes."""
    rope = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3]}
    config = getattr(transformers, f"{kind}Config")(
        text_config={**_TEXT, "rope_parameters": rope} | text,
        vision_config={"depth": 2, "patch_size": 4, "spatial_merge_size": 2, "temporal_patch_size": 2, **tower},
        image_token_id=200,
        video_token_id=201,
        vision_start_token_id=202,
        vision_end_token_id=203,
    )
    reads = transformers.Qwen2VLImageProcessorPil(
        patch_size=4, merge_size=2, temporal_patch_size=2, size={"shortest_edge": 32 * 32, "longest_edge": 64 * 64}
    )
    words = tokenizer("<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>")
    processor_class = getattr(transformers, "Qwen3VLProcessor" if "3" in kind else "Qwen2VLProcessor")
    with patch.object(processor_class, "check_argument_for_proper_class"):  # it asks torchvision for one of videos
        processor = processor_class(reads, words)
    return _built(getattr(transformers, f"{kind}ForConditionalGeneration"), config), processor


def qwen2_vl() -> tuple[PreTrainedModel, Any]:
    return _qwen("Qwen2VL", {"embed_dim": 32, "hidden_size": 64, "num_heads": 2})


def qwen2_5_vl() -> tuple[PreTrainedModel, Any]:
    tower = {"hidden_size": 32, "out_hidden_size": 64, "num_heads": 2, "intermediate_size": 48, "window_size": 16}
    return _qwen("Qwen2_5_VL", {**tower, "fullatt_block_indexes": [1]})


def qwen3_vl() -> tuple[PreTrainedModel, Any]:
    tower = {"hidden_size": 32, "out_hidden_size": 64, "num_heads": 2, "intermediate_size": 48}
    tower |= {"num_position_embeddings": 64, "deepstack_visual_indexes": [0, 1]}
    return _qwen("Qwen3VL", tower, head_dim=16)


def qwen3_5() -> tuple[PreTrainedModel, Any]:
    """A hybrid: its layers keep a state beside pages."""
    tower = {"hidden_size": 32, "out_hidden_size": 64, "num_heads": 2, "intermediate_size": 48}
    rope = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 2, 1], "partial_rotary_factor": 0.5}
    text: dict[str, Any] = {"head_dim": 16, "layer_types": ["linear_attention", "full_attention", "linear_attention"]}
    text |= {"linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 13}
    text |= {"linear_value_head_dim": 19, "rope_parameters": rope}
    return _qwen("Qwen3_5", {**tower, "num_position_embeddings": 64, "deepstack_visual_indexes": []}, **text)


def llava_next() -> tuple[PreTrainedModel, Any]:
    """Whose pictures are cut into tiles."""
    grid = [[42, 84], [84, 42]]
    config = transformers.LlavaNextConfig(
        text_config={"model_type": "llama", **_TEXT},
        vision_config={"model_type": "clip_vision_model", **_TOWER, "image_size": 42, "patch_size": 6},
        image_token_index=200,
        image_grid_pinpoints=grid,
    )
    reads = transformers.LlavaNextImageProcessorPil(
        size={"shortest_edge": 42}, crop_size={"height": 42, "width": 42}, image_grid_pinpoints=grid
    )
    processor = transformers.LlavaNextProcessor(
        reads,
        tokenizer("<image>"),
        patch_size=6,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    )
    return _built(transformers.LlavaNextForConditionalGeneration, config), processor


FAMILIES: dict[str, Callable[[], tuple[PreTrainedModel, Any]]] = {
    made.__name__: made
    for made in (gemma3, gemma4, gemma4_blocks, llava, mistral3, qwen2_vl, qwen2_5_vl, qwen3_vl, qwen3_5, llava_next)
}


@dataclass(frozen=True)
class PictureJob(Job):
    """A job whose prompt has pictures."""

    seen: Any = field(default=None, hash=False, compare=False)

    def request(self, target: Target, drafters: Sequence[BaseDrafter] = ()) -> Request:
        made = super().request(target, drafters)
        made.pictures = self.seen
        return made


class Subject:
    """A family's model, loaded, and beside it as transformers runs it."""

    def __init__(self, family: str, cache_tokens: int = 4096) -> None:
        self._hold(*FAMILIES[family](), cache_tokens)

    def _hold(self, model: PreTrainedModel, processor: Any, cache_tokens: int) -> None:
        self.model, self.processor = model, processor
        self.llm = paceline.LLM(self.model, tokenizer=self.processor, cache_tokens=cache_tokens, drafters="none")
        self.target = self.llm.target
        self.plain = PlainRuns(self.target)

    def prompt(self, *parts: int | Image.Image, seed: int = 0) -> Pictured:
        """Numbers of tokens, and pictures, in their order."""
        mark = mark_of(self.processor)
        words = [text(part, seed + i) if isinstance(part, int) else mark for i, part in enumerate(parts)]
        return Pictured(" ".join(words), tuple(part for part in parts if not isinstance(part, int)))

    def job(self, prompt: Pictured, seed: int, **options: Any) -> PictureJob:
        ids = self.llm.runtime.factory.seen(prompt)
        return PictureJob(tuple(ids), {"max_tokens": 15, **options}, seed, seen=ids.pictures)

    def generated(self, prompt: Pictured, count: int) -> list[int]:
        """Greedy tokens by transformers alone."""
        given = self.processor(text=[prompt.text], images=[list(prompt.pictures)], return_tensors="pt")
        known = inspect.signature(self.model.forward).parameters
        given = {name: value for name, value in given.items() if name in known}
        out = self.model.generate(**given, max_new_tokens=count, do_sample=False, pad_token_id=0, eos_token_id=None)
        return out[0, given["input_ids"].shape[1] :].tolist()
