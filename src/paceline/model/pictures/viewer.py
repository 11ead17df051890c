"""From a prompt with pictures to what the engine reads, by the checkpoint's processor."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from paceline.engine.seen import SeenIds
from paceline.errors import ModelError, RequestError, first_line
from paceline.model.decoder import Decoder
from paceline.model.pictures.checking import check_pictures
from paceline.model.pictures.towers import Towers
from paceline.text.pictures import Pictured
from paceline.text.processor import Processor

Call = Callable[[Callable[[], Any]], Any]  # runs what it is given in the engine's thread


class Viewer:
    """Sees pictures for one model. Nothing is read or proved before the first.

    Args:
        decoder: the model as it runs.
        read_processor: gives the checkpoint's processor.
    """

    def __init__(self, decoder: Decoder, read_processor: Callable[[], Any]) -> None:
        self._decoder, self._read_processor = decoder, read_processor
        self._processor: Processor | None = None
        self._refusal = ""
        self._lock = threading.Lock()

    def processor(self, call: Call) -> Processor:
        """The processor, once the model is known to take pictures as we show them.

        Raises:
            RequestError: it does not, or there is none.
        """
        with self._lock:
            if self._processor is None and not self._refusal:
                try:
                    self._processor = self._proved(call)
                except ModelError as error:
                    self._refusal = f"this model takes no pictures here: {error}"
            if self._processor is None:
                raise RequestError(self._refusal)
            return self._processor

    def _proved(self, call: Call) -> Processor:
        towers = Towers(self._decoder.model)
        processor = Processor(self._read_processor(), towers.token_id)
        self._decoder.towers = towers
        call(lambda: check_pictures(self._decoder, towers, processor))
        return processor

    def see(self, prompt: Pictured, call: Call) -> SeenIds:
        """Token ids of a prompt, and its pictures.

        Raises:
            RequestError: this model takes no pictures, or not these.
        """
        given = self.processor(call).read(prompt)
        assert self._decoder.towers is not None
        try:
            return SeenIds(given.ids, self._decoder.towers.see(given))
        except RequestError:
            raise
        except Exception as error:  # of the model's code
            raise RequestError(f"the model cannot place these pictures: {first_line(error)}") from error
