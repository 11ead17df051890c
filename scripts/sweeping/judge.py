"""The verdict on one entry: a tiny random model of it, saved, loaded by the front door, and held to every promise."""

from __future__ import annotations

import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

import torch
import transformers

import paceline
from paceline.errors import first_line
from sweeping.entries import class_of
from sweeping.shrink import FIRST_SPECIAL, shrunk

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

from models.families import Loaded, check, check_translator, of_config, redraw


def judge(model_type: str) -> dict[str, Any]:
    """`verdict` (exact-native, exact-modules, refused, wrong, crash, not-built) and why, with how long it took."""
    started = time.perf_counter()
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    found = _judged(model_type)
    return {"name": model_type, **found, "seconds": round(time.perf_counter() - started, 1)}


def _judged(model_type: str) -> dict[str, Any]:
    try:
        model = _built(model_type)
    except Exception as error:
        return _with_reason("not-built", error)
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        try:
            loaded = Loaded(model, folder, FIRST_SPECIAL)
        except paceline.PacelineError as error:
            return _with_reason("refused", error)
        except Exception as error:
            return _with_reason("crash", error)
    try:
        (check_translator if model.config.is_encoder_decoder else check)(loaded, 40)
    except AssertionError as error:
        return _with_reason("wrong", error)
    except Exception as error:
        return _with_reason("crash", error)
    numerics = loaded.target.numerics()
    is_native = numerics["path"].startswith("native")
    return {
        "verdict": "exact-native" if is_native else "exact-modules",
        "why": "",
        "class": type(model).__name__,
        "in_one_call": loaded.target.decoder.is_exact_by_construction,
        "note": loaded.llm.info.note,
    }


def _built(model_type: str) -> transformers.PreTrainedModel:
    """The model, if transformers itself decodes text by it; of encoder-decoders the whole one, which a user has."""
    config = shrunk(model_type)
    if config.is_encoder_decoder:
        return _of_sources(class_of(model_type)._from_config(config, attn_implementation="eager"))
    model = of_config(config)
    ids = torch.tensor([[3, 77, 12, 5]])
    model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=3, do_sample=False, pad_token_id=0)
    return model


def _of_sources(model: transformers.PreTrainedModel) -> transformers.PreTrainedModel:
    redraw(model)
    settings = model.generation_config
    settings.forced_bos_token_id = settings.forced_eos_token_id = None
    if settings.decoder_start_token_id is None:
        settings.decoder_start_token_id = 0
    return model.eval()


def _with_reason(verdict: str, error: Exception) -> dict[str, Any]:
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if verdict in ("crash", "not-built") else ""
    kind = "" if isinstance(error, paceline.PacelineError | AssertionError) else f"{type(error).__name__}: "
    return {"verdict": verdict, "why": f"{kind}{first_line(error)}{where}"}
