"""Banking: accounts that money is in and paid from."""

from typing import Any

from env_sim.worlds.catalogue import Catalogue
from env_sim.worlds.intents import Action, Domain, Intent, Missing, Things, Unserved
from env_sim.worlds.world import Pool, tool, words

ACCOUNTS = words(
    "checking, savings, holiday, business, family, rent, emergency, college, house, travel, tax, gift",
    "wedding, pension, joint, garden, boat, music",
)


class Banking(Catalogue):
    name = "banking"
    title = "Banking"
    noun = "account"
    letter = "A"
    names = ACCOUNTS
    taken = "empty"
    tools = (
        tool("find_account", "Find an account by its name", query="string"),
        tool("get_account", "Balance of an account", id="string"),
        tool("pay_account", "Pay an amount from an account", id="string", amount="integer"),
        tool("close_account", "Close an account", id="string"),
    )

    def find_account(self, query: str) -> dict[str, Any]:
        code = self.id_of(query)
        return {"id": code, "year": self.number(1990, 2024, code)}

    def get_account(self, id: str) -> dict[str, Any]:
        return {"balance": self.number(100, 900, self.known(id))}

    def pay_account(self, id: str, amount: int) -> dict[str, Any]:
        return {"receipt": self.code("R", self.take(id), amount)}

    def close_account(self, id: str) -> dict[str, Any]:
        return {"case": self.code("C", self.drop(id))}


DOMAIN = Domain(
    world=Banking,
    things=Things(
        by_id=Pool(("account {id}", "{id}", "account number {id}"), ("the account {id}",)),
        by_name=Pool(
            ("the {query} account", "my {query} account", "our {query} account"), ("the account named {query}",)
        ),
        it=Pool(("it", "that account", "that one"), ("this account",)),
        unnamed=Pool(("my account", "the account", "an account"), ("my bank account",)),
    ),
    find=Intent(
        tool="find_account",
        requests=Pool(
            ("find {thing}", "[look up|search] {thing}", "look for {thing}", "Which number has {thing}?"),
            ("What is {thing} called?", "see if there is {thing}"),
        ),
        thinking="find {query}",
        replies=("It is account {id}.", "Found it: {id}."),
        fact="id",
    ),
    get=Intent(
        tool="get_account",
        requests=Pool(
            ("How much is in {thing}?", "check the balance of {thing}", "tell me what is in {thing}"),
            ("What's the balance of {thing}?", "look up what {thing} holds"),
        ),
        thinking="check {id}",
        replies=("It holds ${balance}.", "{id} has ${balance}."),
        fact="balance",
    ),
    act=Action(
        tool="pay_account",
        requests=Pool(
            (
                "pay ${amount} from {thing}",
                "[send|pay] {amount} dollars from {thing}",
                "I owe ${amount}. Pay it from {thing}.",
                "use {thing} to pay ${amount}",
            ),
            ("take ${amount} out of {thing} and pay", "{amount} dollars are due, pay from {thing}."),
        ),
        thinking="pay {amount} from {id}",
        replies=("Paid, receipt {receipt}.", "${amount} paid from {id}, receipt {receipt}."),
        fact="receipt",
        parameter="amount",
        values=Pool(tuple(range(12, 300, 7)), tuple(range(301, 500, 7))),
        without=Pool(("pay my bill from {thing}", "[pay|make a payment] from {thing}"), ("use {thing} to pay",)),
        missing=Missing(
            "amount",
            "What amount should I pay?",
            ("amount", "much", "dollars"),
            Pool(("{amount}", "${amount}", "It's {amount} dollars."), ("Make it {amount}.",)),
        ),
        otherwise=Pool(
            ("or another one if it is empty", "or any other account if that is empty", "else another one"),
            ("and if nothing is in it, a different one",),
        ),
    ),
    drop=Intent(
        tool="close_account",
        requests=Pool(
            ("close {thing}", "shut {thing}", "I don't need {thing}. Close it."),
            ("get rid of {thing}", "I no longer use {thing}. Close it."),
        ),
        thinking="close {id}",
        replies=("{id} is closed, case {case}.", "Closed, case {case}."),
        fact="case",
    ),
    which=Missing(
        "id",
        "Which account id?",
        ("account", "id", "number"),
        Pool(("{id}", "It's {id}.", "Account {id}."), ("The one called {id}.",)),
    ),
    unserved=Pool(
        (
            Unserved("apply for a loan", ("loan",)),
            Unserved("buy some gold", ("gold",)),
            Unserved("raise my credit limit", ("credit", "limit")),
            Unserved("change money into euros", ("euros", "change")),
        ),
        (
            Unserved("buy some shares", ("shares",)),
            Unserved("do my tax return", ("tax",)),
        ),
    ),
)
