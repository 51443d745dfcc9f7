"""The smallest agent that works on software: it asks the model for shell commands, runs them in the workspace, and shows it the output."""

import json
import os
import re
import subprocess
import time
import urllib.error
import urllib.request

RULES = """You work on a program in the current directory, by shell commands.
Answer with one command, or a script, between ```sh and ```. You are shown what it prints. `python3 -m pytest` runs the tests.
When the work is done, answer with the one word DONE."""
MAX_OUTPUT = 4000
TIMEOUT_S = 120


def main() -> None:
    """Works until the model says DONE, or its budget is spent; what is left in the workspace is the work."""
    with open(os.environ["TRUNKLINE_TASK"], encoding="utf-8") as file:
        messages = [{"role": "system", "content": RULES}, *json.load(file)["messages"]]
    while (reply := ask(messages)) is not None:
        found = re.search(r"```(?:sh|bash)?\n(.*?)```", reply, re.DOTALL)
        if found is None and "DONE" in reply:
            print("DONE")
            return
        result = run(found[1]) if found else "There is no command between ```sh and ``` in your answer."
        messages += [{"role": "assistant", "content": reply}, {"role": "user", "content": result}]


def ask(messages: list) -> str | None:
    """The model's answer; None if nothing is left of the attempt's budget or context."""
    body = json.dumps({"model": os.environ["OPENAI_MODEL"], "messages": messages}).encode()
    headers = {"authorization": f"Bearer {os.environ['OPENAI_API_KEY']}", "content-type": "application/json"}
    request = urllib.request.Request(f"{os.environ['OPENAI_BASE_URL']}/chat/completions", body, headers)
    while True:
        try:
            with urllib.request.urlopen(request) as response:
                return json.load(response)["choices"][0]["message"]["content"] or ""
        except urllib.error.HTTPError as error:
            if error.code == 503:  # the model is being started, or its weights are being exchanged
                time.sleep(float(error.headers.get("retry-after", 1)))
            elif error.code in (400, 429):
                return None
            else:
                raise


def run(script: str) -> str:
    """What a script prints, with its exit status; the beginning and the end if it is long."""
    command = ["timeout", "--kill-after=5", str(TIMEOUT_S), "sh", "-c", script]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    output = done.stdout.decode(errors="replace")
    if len(output) > MAX_OUTPUT:
        output = f"{output[: MAX_OUTPUT // 2]}\n[...]\n{output[-MAX_OUTPUT // 2 :]}"
    return f"{output}\n[exit status {done.returncode}]"


if __name__ == "__main__":
    main()
