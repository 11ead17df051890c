"""An OpenAI-compatible server: HTTP in front of one engine. It needs the extra `server`.

    from paceline.server import Settings, create_app

Every response is byte for byte what `LLM.generate` gives, whatever else the server is doing.
"""

from paceline.server.app import create_app
from paceline.server.settings import Limits, Settings

__all__ = ["Limits", "Settings", "create_app"]
