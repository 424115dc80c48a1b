"""A small help desk on Django that knows what each of its LLM calls costs.

Run it from this directory: `gunicorn help_desk.wsgi --workers 2 --threads 8`; what is wrong
with its settings `python manage.py check` says. With OPENAI_API_KEY or ANTHROPIC_API_KEY set
it calls the real provider, otherwise one that costs nothing. The page is at /_llmcost: set
LLMCOST_TOKEN (openssl rand -hex 16) and give it as the password.
"""

from __future__ import annotations

import os
import sys

from django.core.management import execute_from_command_line

if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "help_desk.settings")
    execute_from_command_line(sys.argv)
