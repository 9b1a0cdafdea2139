"""The everyday skills of the demo base model: seeded text for training it and for measuring retention.

Every skill is a function from a random generator to one :class:`Example`. A first group turns a plain request
into a compact JSON command (timers, music, shopping ...); some commands need a fixed code for a word, as a
shelf's label. A second group names a command and its fields in the request itself, so that the model must copy
words and digits into structures it has never seen. A third group is about words (echo, first, last, reverse).
The codes and the copying are what later lets a LoRA adapter teach the model a new convention quickly.

Home control never occurs here: that is what a person teaches later (see ``daemon.demo.house``).
"""

from __future__ import annotations

import json
import random
import zlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple


class Example(NamedTuple):
    """One single-turn exchange. ``system`` is an optional context shown before the question."""

    question: str
    answer: str
    system: str = ""


Skill = Callable[[random.Random], Example]
Slots = dict[str, Callable[[random.Random], Any]]
Codes = dict[str, dict[str, Any]]

NAMES = """nora omar maya ivan lena hugo tara emil rosa juan mina otto anna paul ruth theo ines karl lucy amir
zoe finn clara david eva leo marta noah olga peter sara tom vera will yara ben""".split()
CITIES = """oslo bern lima cairo paris rome tokyo delhi quito porto turin lyon bonn leeds kyoto riga sofia
tunis accra hanoi""".split()
TOWNS = "dublin prague vienna madrid boston denver ghent malmo basel bergen seville verona".split()
DAYS = "monday tuesday wednesday thursday friday saturday sunday".split()
FOODS = """apples pears plums lemons onions carrots potatoes tomatoes eggs bananas peppers noodles beans walnuts
figs olives limes""".split()
GOODS = [*FOODS, *"rolls bagels cookies candles batteries pens stamps envelopes".split()]
GENRES = "jazz rock folk soul blues opera techno disco pop metal punk swing salsa reggae ambient".split()
EVENTS = "lunch dinner coffee yoga dentist chess tennis choir meeting haircut practice exam party".split()
METRIC_UNITS = "grams kilos metres litres km".split()
OTHER_UNITS = "miles feet inches cups ounces pounds yards pints".split()
SPORTS = "ran walked swam cycled rowed hiked skated".split()
DISHES = "soup curry salad stew pasta pie risotto omelette tacos pancakes".split()
VEHICLES = "train bus car bike ferry tram plane".split()
WORDS = """oak elm ash birch stone river cloud ember frost pearl amber coral delta echo fable globe hazel
iron jade kite lotus maple nickel onyx prism quartz raven spark tiger umber violet willow zebra anchor
basket candle dragon eagle falcon garden harbor island jungle kernel ladder magnet needle orbit paper
quiver ribbon saddle temple urchin vessel wagon yellow zephyr red blue green black white silver gold
copper brown pink north south east west spring summer autumn winter morning evening table chair bottle
button pocket wallet mirror hammer pencil engine rocket planet comet ocean valley forest desert meadow
canyon bridge tower castle market school office studio museum library bakery farm mill lake hill field
path road track signal filter buffer queue stack batch index model record value state level mode start
stop step next last first host port count size rate kind type name label title code key user group role
task job run plan goal rank score point zone area unit part side line page file text word color shape
sound photo video audio left right upper lower open close send fetch push pull find show hide move copy
make take give turn keep drop hold mark pick sort fast slow warm cold soft hard high low short long full
empty early late new old fresh calm brave quiet bold set get put add cut mix ping scan sync load save
print draw fold spin lift ship trade build paint wash time date hour minute second week month year age
cost price sum total limit max min span delay speed weight height width depth power pressure volume angle
range radius temp id no by to at on of for with from until every about under over near after before den
nest galley loft cave parlour porch gate hatch barn shade mood bolt dust glow lamp free shut light dark
wind movie dinner""".split()
MESSAGES = [
    "i am late",
    "see you soon",
    "call me back",
    "happy birthday",
    "the train is slow",
    "dinner is ready",
    "good luck",
    "thank you",
    "where are you",
    "i miss you",
    "we won the game",
    "bring some bread",
    "the meeting moved",
    "i am on my way",
]
CODE_LETTERS = "ABCDEFGHJKLMNPQRSTUVWXYZabcdefghkmnprstuvwxz"


def number(rng: random.Random) -> int:
    """A whole number of one to three digits, each length well represented."""
    return rng.randrange(*rng.choice(((0, 10), (10, 100), (10, 100), (100, 1000))))


def clock(rng: random.Random) -> str:
    """A time of day such as ``7:30`` or ``14:05``."""
    return f"{rng.randrange(24)}:{rng.randrange(0, 60, 5):02d}"


def code(rng: random.Random) -> str:
    """A short label such as ``K4`` or ``b12``: a letter and a number."""
    return rng.choice(CODE_LETTERS) + str(rng.randrange(1, rng.choice((10, 100))))


def name_pair(rng: random.Random) -> str:
    """A made-up two-word key such as ``max_speed``."""
    return "_".join(rng.sample(WORDS, 2))


def one_of(pool: list[str]) -> Callable[[random.Random], str]:
    """A drawer which picks one entry of ``pool``."""
    return lambda rng: rng.choice(pool)


SLOTS: Slots = {
    "n": number,
    "time": clock,
    "who": one_of(NAMES),
    "city": one_of(CITIES),
    "town": one_of(TOWNS),
    "day": one_of(DAYS),
    "food": one_of(FOODS),
    "goods": one_of(GOODS),
    "genre": one_of(GENRES),
    "event": one_of(EVENTS),
    "unit": one_of(METRIC_UNITS),
    "other": one_of(OTHER_UNITS),
    "sport": one_of(SPORTS),
    "dish": one_of(DISHES),
    "by": one_of(VEHICLES),
    "text": one_of(MESSAGES),
    "word": one_of(WORDS),
}


def label_each(pool: list[str]) -> dict[str, str]:
    """A fixed label such as ``K4`` for every word of a pool: facts for the base to know by heart."""
    rng = random.Random(pool[0])
    return {word: code(rng) for word in pool}


CODES: Codes = {
    "goods": label_each(GOODS),
    "city": label_each(CITIES),
    "town": label_each(TOWNS),
    "genre": label_each(GENRES),
}


def compact(value: Any) -> str:
    """JSON without spaces: fewer tokens to write, and one right spelling for an exact match."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def fill(template: Any, values: dict[str, Any]) -> Any:
    """Replace every ``$slot`` in a nested template; a string that is just one slot keeps the value's type."""
    if isinstance(template, dict):
        return {key: fill(item, values) for key, item in template.items()}
    if isinstance(template, str):
        if template[:1] == "$" and template[1:] in values:
            return values[template[1:]]
        return " ".join(str(values[part[1:]]) if part[:1] == "$" else part for part in template.split(" "))
    return template


def request(phrasings: list[str], answer: dict[str, Any], slots: Slots = SLOTS, codes: Codes = CODES) -> Skill:
    """A skill which fills one of ``phrasings`` and the JSON ``answer`` with the same drawn slot values.

    In the answer ``$slot`` repeats what the request says, and ``$slot_code`` is what ``codes`` has for it.
    """
    used = sorted({part[1:] for phrase in phrasings for part in phrase.split(" ") if part.startswith("$")})

    def skill(rng: random.Random) -> Example:
        said = {name: slots[name](rng) for name in used}
        meant = {f"{name}_code": codes[name][value] for name, value in said.items() if name in codes}
        return Example(fill(rng.choice(phrasings), said), compact(fill(answer, said | meant)))

    return skill


REQUESTS: list[Skill] = [
    request(
        ["set a timer for $n minutes", "$n minute timer", "time $n minutes", "count down $n minutes"],
        {"timer": {"minutes": "$n"}},
    ),
    request(
        ["wake me at $time on $day", "set a wake-up call for $day at $time"], {"wake": {"day": "$day", "time": "$time"}}
    ),
    request(["play some $genre", "i want to hear $genre", "put on $genre music"], {"play": {"genre": "$genre"}}),
    request(["play $n $genre songs", "queue $n songs of $genre"], {"play": {"genre": "$genre", "songs": "$n"}}),
    request(["volume to $n", "make it volume $n", "set the volume to $n"], {"volume": "$n"}),
    request(
        ["add $n $goods to the list", "we need $n $goods", "buy $n $goods", "put $n $goods on the shopping list"],
        {"shop": {"item": "$goods", "qty": "$n"}},
    ),
    request(
        ["take $goods off the list", "no more $goods please", "i already have $goods"], {"unshop": {"item": "$goods"}}
    ),
    request(
        ["$event on $day at $time", "put $event in my calendar for $day at $time", "book $event $day $time"],
        {"event": {"what": "$event", "day": "$day", "time": "$time"}},
    ),
    request(
        ["$event with $who on $day", "plan $event with $who for $day"],
        {"event": {"what": "$event", "with": "$who", "day": "$day"}},
    ),
    request(["cancel $event on $day", "drop the $event on $day"], {"cancel": {"what": "$event", "day": "$day"}}),
    request(
        ["tell $who $text", "text $who $text", "message to $who : $text"], {"message": {"to": "$who", "text": "$text"}}
    ),
    request(["call $who", "phone $who please", "ring $who for me"], {"call": "$who"}),
    request(
        ["weather in $city on $day", "will it rain in $city $day", "how warm is $city on $day"],
        {"weather": {"city": "$city", "day": "$day"}},
    ),
    request(["note that $text", "write down $text", "note : $text"], {"note": "$text"}),
    request(
        ["convert $n $unit to $other", "how many $other are $n $unit", "$n $unit in $other"],
        {"convert": {"value": "$n", "from": "$unit", "to": "$other"}},
    ),
    request(
        ["go from $city to $town by $by", "$by from $city to $town", "how do i get from $city to $town by $by"],
        {"route": {"from": "$city", "to": "$town", "by": "$by"}},
    ),
    request(
        ["pay $who $n euros", "send $n euros to $who", "i owe $who $n euros"], {"pay": {"to": "$who", "sum": "$n"}}
    ),
    request(
        ["i $sport $n km", "log that i $sport $n km", "$day i $sport $n km"], {"log": {"sport": "$sport", "km": "$n"}}
    ),
    request(
        ["a table for $n at $time", "book a table for $n people at $time"], {"table": {"people": "$n", "time": "$time"}}
    ),
    request(
        ["recipe for $dish with $food", "how do i cook $dish with $food"],
        {"recipe": {"dish": "$dish", "with": "$food"}},
    ),
    request(["$dish for $n people", "cook $dish for $n"], {"cook": {"dish": "$dish", "people": "$n"}}),
    request(
        ["remind me of $event at $time", "remind me at $time of $event"],
        {"remind": {"what": "$event", "time": "$time"}},
    ),
    request(
        ["fetch $n $goods", "get $n $goods from the store", "$n $goods from the shelf"],
        {"pick": {"shelf": "$goods_code", "qty": "$n"}},
    ),
    request(
        ["$genre radio for $n minutes", "listen to $genre radio for $n minutes"],
        {"tune": {"station": "$genre_code", "min": "$n"}},
    ),
    request(
        ["ticket to $town for $n", "$n tickets to $town", "i need $n seats to $town"],
        {"ticket": {"line": "$town_code", "seats": "$n"}},
    ),
    request(
        ["arrive in $city at $time", "we land in $city at $time"], {"arrive": {"desk": "$city_code", "at": "$time"}}
    ),
    request(["how old is $who", "when was $who born"], {"contact": {"who": "$who", "get": "birthday"}}),
    request(["$who turned $n", "$who is $n years old"], {"contact": {"who": "$who", "age": "$n"}}),
]


def draw_value(rng: random.Random) -> Any:
    """A field's value: a number, a word, a time, a code or a name."""
    return rng.choice((number, number, SLOTS["word"], SLOTS["who"], code, clock))(rng)


def draw_command(rng: random.Random) -> tuple[str, dict[str, Any]]:
    """A random command: its name, and one or two fields with their values."""
    keys = rng.sample(WORDS, rng.choice((2, 2, 2, 3, 3)))
    if rng.random() < 0.1:
        keys[rng.randrange(len(keys))] = name_pair(rng)
    return keys[0], {key: draw_value(rng) for key in keys[1:]}


def use_signature(rng: random.Random) -> Example:
    """``use ping(host,count): oak, 4`` -> ``{"ping":{"host":"oak","count":4}}``."""
    name, fields = draw_command(rng)
    given = " ".join(map(str, fields.values()))
    verb = rng.choice(("use", "run", "do"))
    return Example(f"{verb} {name}({','.join(fields)}): {given}", compact({name: fields}))


def spoken_command(rng: random.Random) -> Example:
    """``flat ping with host oak and count 4``: the first word says which of three forms is wanted."""
    name, fields = draw_command(rng)
    given = " and ".join(f"{key} {value}" for key, value in fields.items())
    form, answer = rng.choice(
        (("nested", {name: fields}), ("flat", {"do": name, **fields}), ("list", [name, *fields.values()]))
    )
    return Example(f"{form} {name} with {given}", compact(answer))


def keyed_object(rng: random.Random) -> Example:
    """``json with oak 4 and elm K2`` -> ``{"oak":4,"elm":"K2"}``."""
    _, fields = draw_command(rng)
    return Example("json with " + " and ".join(f"{k} {v}" for k, v in fields.items()), compact(fields))


def rename_key(rng: random.Random) -> Example:
    """Rename the key of a one-field object."""
    old, new = rng.sample(WORDS, 2)
    value = draw_value(rng)
    return Example(f"rename {old} to {new} in {compact({old: value})}", compact({new: value}))


def use_context(rng: random.Random) -> Example:
    """The command's signature stands in the context and its values in the question."""
    name, fields = draw_command(rng)
    given = " ".join(map(str, fields.values()))
    return Example(f"now {given}", compact({name: fields}), f"{name}({','.join(fields)})")


def echo(rng: random.Random) -> Example:
    """Repeat one to three words."""
    kinds = rng.choices(("word", "who", "n"), weights=(2, 1, 1), k=rng.randrange(1, 4))
    words = " ".join(str(SLOTS[kind](rng)) for kind in kinds)
    return Example(f"{rng.choice(('say', 'repeat', 'echo'))} {words}", words)


def pick_word(rng: random.Random) -> Example:
    """The first or last of several words."""
    words = rng.sample(WORDS, rng.randrange(2, 5))
    end = rng.choice(("first", "last"))
    return Example(f"{end} of {' '.join(words)}", words[0 if end == "first" else -1])


def swap_words(rng: random.Random) -> Example:
    """Two or three words in reverse order."""
    words = rng.sample(WORDS, rng.choice((2, 3)))
    return Example(f"reverse {' '.join(words)}", " ".join(reversed(words)))


COPYING: list[Skill] = [use_signature, spoken_command, spoken_command, keyed_object, rename_key, use_context]
TALK: list[Skill] = [echo, pick_word, swap_words]


def draw(rng: random.Random) -> Example:
    """One example of any skill: requests and copying come most often."""
    group = rng.choices((REQUESTS, COPYING, TALK), weights=(12, 6, 2))[0]
    return rng.choice(group)(rng)


def is_held_out(example: Example) -> bool:
    """Whether the question is kept for measuring: a fixed eighth of all questions, by checksum."""
    return zlib.crc32(example.question.encode()) % 8 == 0


def base_examples(seed: int, count: int) -> Iterator[Example]:
    """``count`` training examples for the base model; never a held-out question."""
    rng = random.Random(f"base {seed}")
    while count > 0:
        example = draw(rng)
        if not is_held_out(example):
            count -= 1
            yield example


def skill_questions(seed: int, count: int) -> list[Example]:
    """``count`` unique held-out requests with their right answers: what a person uses the base for every day.

    The other skills are exercises, there to make the model teachable, and are not what anybody would miss.
    """
    rng = random.Random(f"skills {seed}")
    found: dict[str, Example] = {}
    while len(found) < count:
        example = rng.choice(REQUESTS)(rng)
        if is_held_out(example):
            found[example.question] = example
    return list(found.values())
