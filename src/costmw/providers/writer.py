"""Writer's chat, which is OpenAI's at a path of its own.

Shape: https://dev.writer.com/api-reference/completion-api/chat-completion.
"""

from __future__ import annotations

import re

from costmw.providers.base import WireFormat
from costmw.providers.openai import ChatStream, read_chat

FORMATS = (
    WireFormat(
        api="writer.chat",
        operation="chat",
        path=re.compile(r"/v1/chat$"),
        read=read_chat,
        stream=ChatStream,
    ),
)
