// An agent in JavaScript: the OpenAI client runs the tools which the model calls, until it replies.
//
//   npm ci
//   OPENAI_BASE_URL=http://127.0.0.1:8080/sessions/dice-1/v1 OPENAI_API_KEY=none node openai_loop.mjs

import { randomInt } from "node:crypto";
import OpenAI from "openai";

const client = new OpenAI();

const rollDice = {
  type: "function",
  function: {
    name: "roll_dice",
    description: "Rolls dice and gives their sum.",
    parameters: {
      type: "object",
      properties: { dice: { type: "integer", minimum: 1, maximum: 10 } },
      required: ["dice"],
    },
    parse: JSON.parse,
    function: (args) => {
      const dice = Number(args?.dice);
      if (!(dice >= 1 && dice <= 10)) return "error: 1 to 10 dice, please";
      let sum = 0;
      for (let n = 0; n < dice; n++) sum += randomInt(1, 7);
      return String(sum);
    },
  },
};

const question = process.argv.slice(2).join(" ") || "Roll two dice for me.";
const runner = client.chat.completions.runTools(
  {
    model: "policy",
    max_tokens: 48,
    messages: [
      { role: "system", content: "You roll dice with your tool. Be brief." },
      { role: "user", content: question },
    ],
    tools: [rollDice],
  },
  { maxChatCompletions: 4 },
);
console.log((await runner.finalContent()) ?? "");
