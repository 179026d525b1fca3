"""Banking: accounts, payees, transfers, bills, cards."""

from random import Random
from typing import Any

from env_sim.worlds.intents import Arguments, Chain, Domain, Intent, Missing, Recovery, Unfit, Unserved
from env_sim.worlds.values import DATES, PEOPLE
from env_sim.worlds.world import Pool, ToolError, World, same, tool, words

ACCOUNTS = words(
    "checking, savings, holiday, business, family, rent, emergency, college",
    "wedding, pension, joint, garden",
)
COMPANIES = words(
    "City Power, Blue Water, TeleNova, GreenGas, Metro Gym, NetFox, SafeHome, Urban Rail",
    "SolarOne, AquaPure, PhoneHub, HeatWorks, TrashPro",
)


class Banking(World):
    name = "banking"
    title = "Banking"
    tools = (
        tool("get_balance", "Balance of an account", account="string"),
        tool("find_payee", "Payee id of a person", person="string"),
        tool("transfer", "Send money to a payee id", payee="string", amount="integer"),
        tool("find_bill", "Open bill of a company", company="string"),
        tool("pay_bill", "Pay a bill from an account", bill="string", account="string"),
        tool("block_card", "Block a lost card", card="string"),
    )

    def fill(self) -> None:
        self.blocked: set[str] = set()

    def get_balance(self, account: str) -> dict[str, Any]:
        self.known_account(account)
        updated = self.clock(0, 23, "updated", account)
        return {"balance": self.balance(account), "updated": updated}

    def known_account(self, account: str) -> None:
        if not any(same(account, known) for known in self.values(ACCOUNTS)):
            raise ToolError(f"no account {account}")

    def balance(self, account: str) -> int:
        return self.number(12, 980, "balance", account)

    def find_payee(self, person: str) -> dict[str, Any]:
        return {"payee": self.code("Y", person), "last_paid": self.pick(self.values(DATES), person)}

    def limit(self, payee: str) -> int:
        return 10 * self.number(20, 60, "limit", payee)

    def transfer(self, payee: str, amount: int) -> dict[str, Any]:
        if not _is_code("Y", payee):
            raise ToolError(f"no payee {payee}", "find_payee")
        if amount > self.limit(payee):
            raise ToolError(f"the limit is {self.limit(payee)}", self.limit(payee))
        return {"transfer": self.code("T", payee, amount), "arrives": self.pick(self.values(DATES), payee, amount)}

    def find_bill(self, company: str) -> dict[str, Any]:
        bill = self.code("B", company)
        return {"bill": bill, "amount": self.amount(bill), "due": self.pick(self.values(DATES), company)}

    def amount(self, bill: str) -> int:
        return self.number(15, 240, "amount", bill)

    def is_short(self, account: str) -> bool:
        return self.number(1, 3, "short", account) == 1

    def funded(self) -> str:
        return next((account for account in self.values(ACCOUNTS) if not self.is_short(account)), "credit")

    def pay_bill(self, bill: str, account: str) -> dict[str, Any]:
        if not _is_code("B", bill):
            raise ToolError(f"no bill {bill}")
        if account != "credit":
            self.known_account(account)
            if self.is_short(account):
                raise ToolError(f"not enough money in {account}", self.funded())
        return {"receipt": self.code("R", bill, account), "paid": self.amount(bill)}

    def block_card(self, card: str) -> dict[str, Any]:
        if not _is_code("K", card):
            raise ToolError(f"no card {card}")
        if card.upper() in self.blocked:
            raise ToolError(f"card {card} is already blocked")
        self.blocked.add(card.upper())
        return {"case": self.code("C", card), "new_card": self.pick(self.values(DATES), card)}


def _is_code(letter: str, text: str) -> bool:
    return len(text) == 3 and text[0].upper() == letter and text[1:].isdigit()


def account(world: Banking, random: Random) -> Arguments:
    return {"account": random.choice(world.values(ACCOUNTS))}


def person(world: Banking, random: Random) -> Arguments:
    return {"person": random.choice(world.values(PEOPLE))}


def payment(world: Banking, random: Random, too_much: bool = False) -> Arguments:
    payee = f"Y{random.randint(10, 99)}"
    limit = world.limit(payee)
    return {"payee": payee, "amount": limit + random.randint(5, 300) if too_much else random.randint(5, 200)}


def company(world: Banking, random: Random) -> Arguments:
    return {"company": random.choice(world.values(COMPANIES))}


def bill(world: Banking, random: Random, short: bool = False) -> Arguments:
    accounts = [name for name in world.values(ACCOUNTS) if world.is_short(name) == short]
    if not accounts:
        raise Unfit("no account is like that")
    return {"bill": f"B{random.randint(10, 99)}", "account": random.choice(accounts)}


def card(world: Banking, random: Random) -> Arguments:
    return {"card": f"K{random.randint(10, 99)}"}


GET_BALANCE = Intent(
    tool="get_balance",
    requests=Pool(
        (
            "[check|look up] the balance of my {account} account",
            "tell me [what is on|how much is in] the {account} account",
            "How much [money|] do I have in [my|the] {account} account?",
            "What's the balance of the {account} account?",
        ),
        ("see what is left in the {account} account", "My {account} account: what does it hold?"),
    ),
    draw=account,
    thinking="check the {account} account",
    replies=("Your {account} account holds ${balance}, as of {updated}.", "It has ${balance} ({updated})."),
    facts=("balance", "updated"),
    missing=(
        Missing(
            "account",
            Pool(
                ("check my balance", "How much money do I have?", "tell me the balance of my account"),
                ("see what is left in my account",),
            ),
            "Which account do you mean?",
            ("account",),
            Pool(("The {account} one.", "{account}", "My {account} account."), ("I mean {account}.",)),
        ),
    ),
)

FIND_PAYEE = Intent(
    tool="find_payee",
    requests=Pool(
        (
            "[find|look up] the payee id of {person}",
            "tell me {person}'s payee id and when I last paid",
            "What's the payee id of {person}?",
            "When did I last pay {person}, and what's the payee id?",
        ),
        ("dig out the payee entry for {person}", "{person} is one of my payees. Which id?"),
    ),
    draw=person,
    thinking="look up payee {person}",
    replies=("{person} is payee {payee}, last paid on {last_paid}.", "It's {payee}; last paid {last_paid}."),
    facts=("payee", "last_paid"),
)

TRANSFER = Intent(
    tool="transfer",
    requests=Pool(
        (
            "[transfer|send|wire] ${amount} to payee {payee}",
            "pay {amount} dollars to {payee}",
            "I owe payee {payee} ${amount}. [Send it.|Transfer that.]",
        ),
        ("move ${amount} over to payee {payee}", "{payee} should get ${amount} from me."),
    ),
    draw=payment,
    thinking="send {amount} to {payee}",
    replies=("Transfer {transfer} arrives on {arrives}.", "Done: {transfer}, there by {arrives}."),
    facts=("transfer", "arrives"),
    missing=(
        Missing(
            "amount",
            Pool(
                ("transfer money to payee {payee}", "I want to pay {payee}.", "send payee {payee} some money"),
                ("move money over to payee {payee}",),
            ),
            "How much do you want to send?",
            ("amount", "much", "dollars", "sum"),
            Pool(
                ("${amount}", "{amount} dollars.", "Make it ${amount}.", "Send ${amount}."),
                ("${amount} would be right.",),
            ),
        ),
        Missing(
            "payee",
            Pool(
                ("transfer ${amount}", "I want to send {amount} dollars.", "wire ${amount} for me"),
                ("move ${amount} over",),
            ),
            "Which payee gets it?",
            ("payee", "who", "whom", "recipient"),
            Pool(("Payee {payee}.", "{payee}", "It goes to {payee}."), ("{payee} gets it.",)),
        ),
    ),
)

FIND_BILL = Intent(
    tool="find_bill",
    requests=Pool(
        (
            "[find|look up|check] my bill from {company}",
            "[see|tell me] what I owe {company}",
            "How much is the {company} bill?",
            "I got a letter from {company}. What's the bill?",
        ),
        ("dig out the bill that {company} sent", "{company} wants money. How much?"),
    ),
    draw=company,
    thinking="find the {company} bill",
    replies=("Bill {bill} is ${amount}, due {due}.", "You owe ${amount} (bill {bill}) by {due}."),
    facts=("bill", "amount"),
)

PAY_BILL = Intent(
    tool="pay_bill",
    requests=Pool(
        (
            "pay bill {bill} from the {account} account",
            "[settle|pay] {bill} with my {account} account",
            "Bill {bill} is due. Use the {account} account to pay it.",
        ),
        ("clear bill {bill}, money from {account}", "take my {account} account to get bill {bill} off the table"),
    ),
    draw=bill,
    thinking="pay {bill} from {account}",
    replies=("Paid ${paid}, receipt {receipt}.", "Receipt {receipt}: ${paid} paid from {account}."),
    facts=("receipt", "paid"),
    missing=(
        Missing(
            "account",
            Pool(
                ("pay bill {bill}", "Bill {bill} is due, I want to pay it.", "settle bill {bill}"),
                ("clear bill {bill}",),
            ),
            "From which account?",
            ("account",),
            Pool(("From {account}.", "{account}", "Use the {account} account."), ("Take it from {account}.",)),
        ),
    ),
)

BLOCK_CARD = Intent(
    tool="block_card",
    requests=Pool(
        (
            "block card {card}",
            "I lost card {card}. [Block it.|Please block it.]",
            "[lock|stop] my card {card}, it was stolen",
            "Someone took my card {card}. Can you block it?",
        ),
        ("make sure nobody can use card {card}", "Card {card} is gone. Shut it off."),
    ),
    draw=card,
    thinking="block {card}",
    replies=(
        "Card {card} is blocked, case {case}; the new one comes {new_card}.",
        "Case {case}: new card on {new_card}.",
    ),
    facts=("case", "new_card"),
    missing=(
        Missing(
            "card",
            Pool(
                ("block my card", "I lost my card. Block it.", "My card was stolen!"),
                ("make sure nobody can use my card",),
            ),
            "What is the card number?",
            ("card", "number"),
            Pool(("It's {card}.", "{card}", "Card {card}.", "The number is {card}."), ("That is {card}.",)),
        ),
    ),
)

DOMAIN = Domain(
    world=Banking,
    intents=(GET_BALANCE, FIND_PAYEE, TRANSFER, FIND_BILL, PAY_BILL, BLOCK_CARD),
    chains=(
        Chain(
            FIND_PAYEE,
            TRANSFER,
            {"payee": "payee"},
            Pool(
                (
                    "[send|transfer] ${amount} to {person}",
                    "I owe {person} ${amount}. Send it.",
                    "pay {person} {amount} dollars",
                ),
                ("see that {person} gets ${amount} from me",),
            ),
            Pool(
                ("send ${amount} there", "Transfer ${amount} to that payee.", "pay {amount} dollars to that id"),
                ("That payee gets ${amount}, go ahead.",),
            ),
        ),
        Chain(
            FIND_BILL,
            PAY_BILL,
            {"bill": "bill"},
            Pool(
                (
                    "pay my {company} bill from the {account} account",
                    "{company} sent a bill. Pay it with my {account} account.",
                    "find the bill of {company} and pay it from {account}",
                ),
                ("get the {company} bill paid, money from {account}",),
            ),
            Pool(
                ("pay it from the {account} account", "Pay that, use {account}."),
                ("clear it with my {account} account",),
            ),
        ),
    ),
    recoveries=(
        Recovery(
            TRANSFER,
            lambda world, random: payment(world, random, too_much=True),
            Pool(
                (
                    "send ${amount} to payee {payee}, or as much as the limit allows",
                    "transfer ${amount} to {payee}; if that's above the limit, send the limit",
                ),
                ("move ${amount} over to payee {payee}, or the most that is allowed",),
            ),
            "amount",
        ),
        Recovery(
            PAY_BILL,
            lambda world, random: bill(world, random, short=True),
            Pool(
                (
                    "pay bill {bill} from {account}, or from another account if that is short",
                    "Bill {bill} must be paid, best from {account}; any other account will do.",
                ),
                ("clear bill {bill} using {account} or whichever account has enough",),
            ),
            "account",
        ),
    ),
    unserved=Pool(
        (
            Unserved("apply for a loan", ("loan",)),
            Unserved("buy some gold", ("gold",)),
            Unserved("raise my credit limit", ("credit", "limit")),
            Unserved("close my account", ("account", "close")),
        ),
        (Unserved("buy some shares", ("shares",)), Unserved("do my tax return", ("tax",))),
    ),
)
