"""Smart home: rooms, heating, devices, doors, timers."""

from random import Random
from typing import Any

from env_sim.worlds.intents import Arguments, Chain, Domain, Intent, Missing, Recovery, Unserved
from env_sim.worlds.values import TIMES
from env_sim.worlds.world import Pool, ToolError, World, tool, words

ROOMS = words(
    "kitchen, bedroom, bathroom, living room, office, garage, hallway, cellar, nursery, attic",
    "guest room, library, laundry room, sunroom, pantry",
)
KINDS = words("lamp, fan, heater, speaker, blinds, camera, radio", "humidifier, projector, kettle, fountain")
DOORS = words("front door, back door, garage door, garden gate, side door", "cellar door, balcony door, main gate")


class SmartHome(World):
    name = "home"
    title = "Smart home"
    tools = (
        tool("get_climate", "Temperature and humidity of a room", room="string"),
        tool("set_heating", "Set a room's heating in degrees", room="string", degrees="integer"),
        tool("find_device", "Device id of a thing in a room", kind="string", room="string"),
        tool("switch_device", "Switch a device on or off", device="string", state=("on", "off")),
        tool("lock_door", "Lock a door", door="string"),
        tool("set_timer", "Run a device at a time", device="string", time="string"),
    )

    def fill(self) -> None:
        self.states: dict[str, str] = {}

    def get_climate(self, room: str) -> dict[str, Any]:
        return {"degrees": self.number(14, 27, "degrees", room), "humidity": self.number(30, 70, "humidity", room)}

    def warmest(self, room: str) -> int:
        return self.number(20, 24, "warmest", room)

    def set_heating(self, room: str, degrees: int) -> dict[str, Any]:
        if degrees > self.warmest(room):
            raise ToolError(f"the {room} goes up to {self.warmest(room)}", self.warmest(room))
        return {"set": degrees, "warm_at": self.clock(6, 22, room, degrees)}

    def find_device(self, kind: str, room: str) -> dict[str, Any]:
        device = self.online_device(kind, room)
        return {"device": device, "battery": self.battery(device)}

    def battery(self, thing: str) -> int:
        return self.number(5, 100, "battery", thing)

    def online_device(self, *key: str) -> str:
        return next(code for turn in range(100) if self.is_online(code := self.code("D", turn, *key)))

    def is_online(self, device: str) -> bool:
        return self.number(1, 3, "online", device) > 1

    def reach(self, device: str) -> None:
        if not (len(device) == 3 and device[0] in "Dd" and device[1:].isdigit()):
            raise ToolError(f"no device {device}", "find_device")
        if not self.is_online(device):
            raise ToolError(f"device {device} is offline", self.online_device("instead", device))

    def switch_device(self, device: str, state: str) -> dict[str, Any]:
        self.reach(device)
        if self.states.get(device.upper()) == state:
            raise ToolError(f"device {device} is already {state}")
        self.states[device.upper()] = state
        return {"device": device, "state": state, "battery": self.battery(device)}

    def lock_door(self, door: str) -> dict[str, Any]:
        return {"lock": self.code("L", door), "battery": self.battery(door)}

    def set_timer(self, device: str, time: str) -> dict[str, Any]:
        self.reach(device)
        return {"timer": self.code("R", device, time), "stops": self.clock(21, 23, device, time)}


def room(world: SmartHome, random: Random) -> Arguments:
    return {"room": random.choice(world.values(ROOMS))}


def warmth(world: SmartHome, random: Random, too_warm: bool = False) -> Arguments:
    name = random.choice(world.values(ROOMS))
    highest = world.warmest(name)
    return {"room": name, "degrees": highest + random.randint(1, 5) if too_warm else random.randint(16, highest)}


def thing(world: SmartHome, random: Random) -> Arguments:
    return {"kind": random.choice(world.values(KINDS)), "room": random.choice(world.values(ROOMS))}


def switch(world: SmartHome, random: Random, online: bool = True) -> Arguments:
    return {"device": device_of(world, random, online), "state": random.choice(("on", "off"))}


def device_of(world: SmartHome, random: Random, online: bool = True) -> str:
    return random.choice([code for code in (f"D{n}" for n in range(10, 100)) if world.is_online(code) == online])


def door(world: SmartHome, random: Random) -> Arguments:
    return {"door": random.choice(world.values(DOORS))}


def timer(world: SmartHome, random: Random, online: bool = True) -> Arguments:
    return {"device": device_of(world, random, online), "time": random.choice(world.values(TIMES))}


GET_CLIMATE = Intent(
    tool="get_climate",
    requests=Pool(
        (
            "[check|tell me] how warm it is in the {room}",
            "[read|get] the temperature [in|of] the {room}",
            "How warm is it in the {room}?",
            "Is the {room} humid? [What about the temperature?|]",
        ),
        ("see what the climate in the {room} is like", "The {room}: warm or cold right now?"),
    ),
    draw=room,
    thinking="read the {room} climate",
    replies=(
        "The {room} has {degrees} degrees and {humidity} percent humidity.",
        "{degrees} degrees, humidity {humidity}.",
    ),
    facts=("degrees", "humidity"),
    missing=(
        Missing(
            "room",
            Pool(
                ("check how warm it is", "How warm is it?", "read the temperature"),
                ("see what the climate is like",),
            ),
            "In which room?",
            ("room", "where"),
            Pool(("In the {room}.", "The {room}.", "{room}", "I mean the {room}."), ("It's about the {room}.",)),
        ),
    ),
)

SET_HEATING = Intent(
    tool="set_heating",
    requests=Pool(
        (
            "[set|turn] the heating in the {room} to {degrees} degrees",
            "heat the {room} to {degrees} degrees",
            "[I'm cold.|It's chilly.|] Make it {degrees} degrees in the {room}.",
            "I want {degrees} degrees in the {room}.",
        ),
        ("bring the {room} to {degrees} degrees", "{degrees} degrees would be nice in the {room}."),
    ),
    draw=warmth,
    thinking="heat the {room} to {degrees}",
    replies=("Set to {set}; the {room} is warm at {warm_at}.", "It will have {set} degrees at {warm_at}."),
    facts=("warm_at", "set"),
    missing=(
        Missing(
            "degrees",
            Pool(
                ("turn up the heating in the {room}", "heat the {room}", "It's too cold in the {room}. Heat it."),
                ("get the {room} warmer",),
            ),
            "To how many degrees?",
            ("degrees", "temperature", "warm"),
            Pool(("{degrees} degrees.", "{degrees}", "To {degrees}.", "Make it {degrees}."), ("I'd say {degrees}.",)),
        ),
        Missing(
            "room",
            Pool(
                (
                    "set the heating to {degrees} degrees",
                    "I want it to be {degrees} degrees.",
                    "heat to {degrees} degrees",
                ),
                ("bring the heating to {degrees}",),
            ),
            "In which room?",
            ("room", "where"),
            Pool(("The {room}.", "In the {room}.", "{room}"), ("For the {room}.",)),
        ),
    ),
)

FIND_DEVICE = Intent(
    tool="find_device",
    requests=Pool(
        (
            "[find|look up] the {kind} in the {room}",
            "[tell me|check] the device id of the {room} {kind}",
            "Which device is the {kind} in the {room}?",
            "How full is the battery of the {kind} in the {room}?",
        ),
        ("locate the {kind} that stands in the {room}", "There's a {kind} in the {room}. What's its id?"),
    ),
    draw=thing,
    thinking="find the {room} {kind}",
    replies=("The {kind} is device {device}, battery {battery}.", "It's {device} with {battery} percent battery."),
    facts=("device", "battery"),
    missing=(
        Missing(
            "room",
            Pool(
                ("find the {kind}", "Which device is the {kind}?", "tell me the device id of the {kind}"),
                ("locate the {kind}",),
            ),
            "In which room is it?",
            ("room", "where"),
            Pool(("In the {room}.", "The {room}.", "{room}", "The one in the {room}."), ("It stands in the {room}.",)),
        ),
    ),
)

SWITCH_DEVICE = Intent(
    tool="switch_device",
    requests=Pool(
        (
            "[switch|turn] device {device} {state}",
            "[turn|switch] {state} device {device}",
            "I want device {device} to be {state}.",
        ),
        ("have device {device} {state}", "Device {device} should go {state}."),
    ),
    draw=switch,
    thinking="switch {device} {state}",
    replies=(
        "{device} is {state}, battery {battery} percent.",
        "Done, {device} is {state}; its battery has {battery}.",
    ),
    facts=("battery", "state"),
    missing=(
        Missing(
            "state",
            Pool(
                ("switch device {device}", "change device {device}", "Do something about device {device}."),
                ("flip device {device}",),
            ),
            "Should it be on or off?",
            ("off", "state"),
            Pool(("{state}", "Turn it {state}.", "Switch it {state}.", "{state}, please."), ("I want it {state}.",)),
        ),
    ),
)

LOCK_DOOR = Intent(
    tool="lock_door",
    requests=Pool(
        (
            "lock the {door}",
            "[close and lock|make sure to lock] the {door}",
            "I forgot to lock the {door}. [Do it for me.|Lock it.]",
        ),
        ("bolt the {door}", "The {door} is open, lock it."),
    ),
    draw=door,
    thinking="lock the {door}",
    replies=("The {door} is locked ({lock}), battery {battery}.", "Locked, lock {lock}, battery {battery} percent."),
    facts=("lock", "battery"),
    missing=(
        Missing(
            "door",
            Pool(
                ("lock the door", "I forgot to lock a door. Do it.", "lock up"),
                ("bolt the door",),
            ),
            "Which door?",
            ("door", "gate"),
            Pool(("The {door}.", "{door}", "I mean the {door}."), ("It's the {door}.",)),
        ),
    ),
)

SET_TIMER = Intent(
    tool="set_timer",
    requests=Pool(
        (
            "[set a timer for|start] device {device} at {time}",
            "run device {device} at {time}",
            "Device {device} should run at {time}. [Set a timer.|]",
        ),
        ("let device {device} begin at {time}", "{time} is when device {device} should start."),
    ),
    draw=timer,
    thinking="set a timer for {device}",
    replies=("Timer {timer} is set and stops at {stops}.", "{device} runs by timer {timer} until {stops}."),
    facts=("timer", "stops"),
    missing=(
        Missing(
            "time",
            Pool(
                ("set a timer for device {device}", "I need a timer for device {device}.", "run device {device} later"),
                ("let device {device} begin later",),
            ),
            "At what time?",
            ("time", "when", "hour"),
            Pool(("At {time}.", "{time}", "{time}, please."), ("Say {time}.",)),
        ),
    ),
)

DOMAIN = Domain(
    world=SmartHome,
    intents=(GET_CLIMATE, SET_HEATING, FIND_DEVICE, SWITCH_DEVICE, LOCK_DOOR, SET_TIMER),
    chains=(
        Chain(
            FIND_DEVICE,
            SWITCH_DEVICE,
            {"device": "device"},
            Pool(
                (
                    "[turn|switch] {state} the {kind} in the {room}",
                    "[turn|switch] the {room} {kind} {state}",
                    "I want the {kind} in the {room} {state}.",
                ),
                ("have the {kind} of the {room} {state}",),
            ),
            Pool(
                ("turn it {state}", "switch that {state}", "Good, I want it {state}."),
                ("have it {state}",),
            ),
        ),
        Chain(
            FIND_DEVICE,
            SET_TIMER,
            {"device": "device"},
            Pool(
                (
                    "set a timer for the {kind} in the {room} at {time}",
                    "start the {room} {kind} at {time}",
                    "The {kind} in the {room} should run at {time}. Set a timer.",
                ),
                ("let the {kind} in the {room} begin at {time}",),
            ),
            Pool(
                ("set a timer for it at {time}", "run it at {time}"),
                ("let it begin at {time}",),
            ),
        ),
    ),
    recoveries=(
        Recovery(
            SET_HEATING,
            lambda world, random: warmth(world, random, too_warm=True),
            Pool(
                (
                    "heat the {room} to {degrees} degrees, or as warm as it gets",
                    "I'm freezing! Set the {room} to {degrees} degrees or the highest it can do.",
                ),
                ("bring the {room} to {degrees} degrees, or at least to the maximum",),
            ),
            "degrees",
        ),
        Recovery(
            SWITCH_DEVICE,
            lambda world, random: switch(world, random, online=False),
            Pool(
                (
                    "switch {state} device {device}, or its spare if it is offline",
                    "turn device {device} {state}; if it doesn't answer, use the one it suggests",
                ),
                ("have device {device} {state}, or whichever replaces it",),
            ),
            "device",
        ),
    ),
    unserved=Pool(
        (
            Unserved("vacuum the floor", ("vacuum", "floor")),
            Unserved("make me a coffee", ("coffee",)),
            Unserved("do the laundry", ("laundry",)),
            Unserved("repair the roof", ("roof",)),
        ),
        (Unserved("clean the windows", ("windows",)), Unserved("feed the cat", ("cat",))),
    ),
)
