"""The policy in its loop: graph, tools, token rendering, the gateway, the vLLM server and its hot swap, chat."""
