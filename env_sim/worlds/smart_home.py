"""Smart home: devices in rooms."""

from typing import Any

from env_sim.worlds.catalogue import Catalogue
from env_sim.worlds.intents import Action, Domain, Intent, Missing, Things, Unserved
from env_sim.worlds.values import TIMES
from env_sim.worlds.world import Pool, tool, words

DEVICES = words(
    "kitchen lamp, bedroom fan, office heater, living room radio, garage camera, hallway lamp, nursery lamp, "
    "attic fan, cellar heater, bathroom speaker, bedroom blinds, kitchen speaker, office lamp, garage heater",
    "pantry lamp, library fan, sunroom blinds, guest room radio, laundry camera, porch fountain, study projector",
)


class SmartHome(Catalogue):
    name = "home"
    title = "Smart home"
    noun = "device"
    letter = "D"
    names = DEVICES
    taken = "offline"
    tools = (
        tool("find_device", "Find a device by its name", query="string"),
        tool("get_device", "Battery of a device", id="string"),
        tool("start_device", "Start a device at a time", id="string", time="string"),
        tool("stop_device", "Stop a device", id="string"),
    )

    def find_device(self, query: str) -> dict[str, Any]:
        code = self.id_of(query)
        return {"id": code, "watts": self.number(3, 900, code)}

    def get_device(self, id: str) -> dict[str, Any]:
        return {"battery": self.number(2, 99, self.known(id))}

    def start_device(self, id: str, time: str) -> dict[str, Any]:
        return {"timer": self.code("T", self.take(id), time)}

    def stop_device(self, id: str) -> dict[str, Any]:
        return {"minutes": self.number(2, 300, self.drop(id))}


DOMAIN = Domain(
    world=SmartHome,
    things=Things(
        by_id=Pool(("device {id}", "{id}", "device number {id}"), ("the device {id}",)),
        by_name=Pool(("the {query}", "my {query}", "our {query}"), ("that {query}",)),
        it=Pool(("it", "that device", "that one"), ("this device",)),
        unnamed=Pool(("my device", "the device", "a device"), ("the thing",)),
    ),
    find=Intent(
        tool="find_device",
        requests=Pool(
            ("find {thing}", "[look up|search] {thing}", "look for {thing}", "Which device is {thing}?"),
            ("What is {thing} called?", "see if there is {thing}"),
        ),
        thinking="find {query}",
        replies=("It is device {id}.", "Found it: {id}."),
        fact="id",
    ),
    get=Intent(
        tool="get_device",
        requests=Pool(
            ("How full is the battery of {thing}?", "check the battery of {thing}", "tell me the battery of {thing}"),
            ("What's the charge of {thing}?", "look up how charged {thing} is"),
        ),
        thinking="check {id}",
        replies=("Its battery has {battery} percent.", "{id} has {battery} percent."),
        fact="battery",
    ),
    act=Action(
        tool="start_device",
        requests=Pool(
            (
                "start {thing} at {time}",
                "[switch|turn] on {thing} at {time}",
                "I need {thing} at {time}. Start it.",
                "have {thing} running at {time}",
            ),
            ("let {thing} begin at {time}", "{thing} should be on at {time}."),
        ),
        thinking="start {id} at {time}",
        replies=("Timer {timer} is set.", "{id} starts at {time}, timer {timer}."),
        fact="timer",
        parameter="time",
        values=TIMES,
        without=Pool(("start {thing} later", "[switch|turn] on {thing} later today"), ("let {thing} run later",)),
        missing=Missing(
            "time",
            "At what time?",
            ("time", "when", "hour"),
            Pool(("At {time}.", "{time}", "{time}, please."), ("From {time}.",)),
        ),
        otherwise=Pool(
            ("or another one if it is offline", "or any other device if that is offline", "else another one"),
            ("and if it does not answer, a different one",),
        ),
    ),
    drop=Intent(
        tool="stop_device",
        requests=Pool(
            ("stop {thing}", "switch off {thing}", "I don't need {thing} now. Stop it."),
            ("turn {thing} off", "I'm done with {thing}. Stop it."),
        ),
        thinking="stop {id}",
        replies=("{id} stopped after {minutes} minutes.", "Off, it ran {minutes} minutes."),
        fact="minutes",
    ),
    which=Missing(
        "id",
        "Which device id?",
        ("device", "id", "number"),
        Pool(("{id}", "It's {id}.", "Device {id}."), ("The one called {id}.",)),
    ),
    unserved=Pool(
        (
            Unserved("clean the windows", ("windows",)),
            Unserved("feed the cat", ("cat",)),
            Unserved("iron my shirts", ("shirts",)),
            Unserved("paint the fence", ("fence",)),
        ),
        (
            Unserved("take out the trash", ("trash",)),
            Unserved("sweep the chimney", ("chimney",)),
        ),
    ),
)
