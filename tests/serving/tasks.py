"""Celery jobs that make one LLM call each, with a meter made at import: before workers fork.

    python tasks.py COUNT

sends some jobs.
"""

from __future__ import annotations

import os
import sys

import httpx2
from celery import Celery

from costmw import Meter, tag

meter = Meter()
llm = meter.instrument(
    httpx2.Client(base_url=os.environ["PROVIDER"]), api="openai.responses", provider="openai"
)
queue = os.environ["QUEUE"]
app = Celery(
    "tasks",
    broker="filesystem://",
    broker_transport_options={
        "data_folder_in": queue,
        "data_folder_out": queue,
        "control_folder": f"{queue}-control",
    },
)


@app.task(ignore_result=True)  # type: ignore[untyped-decorator]
def chat(n: str) -> None:
    with tag(n=n):
        llm.post("responses", json={"model": "gpt-5-mini", "input": n}).raise_for_status()
    journal = os.open(os.environ["JOURNAL"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(journal, f"{n} {meter.status().late}\n".encode())
    os.close(journal)


if __name__ == "__main__":
    for number in range(int(sys.argv[1])):
        chat.delay(f"job{number}")
