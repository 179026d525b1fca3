"""An agent without a framework: the OpenAI client and a loop that runs the tools which the model calls.

OPENAI_BASE_URL=http://127.0.0.1:8080/sessions/sums-1/v1 OPENAI_API_KEY=none python openai_loop.py
"""

import json
import sys

from openai import OpenAI

MAX_STEPS = 4
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "add",
            "description": "Adds numbers.",
            "parameters": {
                "type": "object",
                "properties": {"numbers": {"type": "array", "items": {"type": "number"}}},
                "required": ["numbers"],
            },
        },
    }
]

client = OpenAI()


def run_tool(name: str, arguments: str) -> str:
    """What a tool answers; what the model did wrong is told to it."""
    try:
        if name != "add":
            return f"error: there is no tool {name}"
        return str(sum(json.loads(arguments)["numbers"]))
    except (ValueError, KeyError, TypeError) as error:
        return f"error: {error}"


def run(question: str) -> str:
    messages = [{"role": "system", "content": "You add numbers with your tool."}, {"role": "user", "content": question}]
    for _ in range(MAX_STEPS):
        answer = client.chat.completions.create(model="policy", messages=messages, tools=TOOLS, max_tokens=48)
        message = answer.choices[0].message
        messages.append(message)
        if not message.tool_calls:
            break
        for call in message.tool_calls:
            result = run_tool(call.function.name, call.function.arguments)
            messages.append({"role": "tool", "tool_call_id": call.id, "content": result})
    return message.content or ""


if __name__ == "__main__":
    print(run(" ".join(sys.argv[1:]) or "What is 12 + 30?"))
