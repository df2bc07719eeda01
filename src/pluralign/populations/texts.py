"""Texts to disagree about: requests for advice, and answers that differ in style.

Every text is put together from phrases of the project's own. An answer has a style, the amounts of eight things that a
reader can see and `count_style` can count, so that a simulated taste is linear in features that stand in the text. What
an answer is about (its topic, and which steps it picks) varies at random and is in nobody's taste.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from pluralign.errors import ConfigError
from pluralign.types import FloatArray, IntArray

STYLE_NAMES = ("length", "bullets", "warmth", "exclamation", "hedging", "humour", "detail", "formality")
# Numbers of each that an answer is asked for run from 0 to below these: steps beyond the first, whether steps are
# bullets, and phrases of the rest.
_LEVELS = np.array([6, 2, 3, 4, 4, 3, 4, 3])

# Activity; steps (imperatives); details (sentences with a number and a unit).
_Topic: TypeAlias = tuple[str, tuple[str, ...], tuple[str, ...]]
_TOPICS: tuple[_Topic, ...] = (
    (
        "baking sourdough bread",
        (
            "feed the starter the evening before",
            "rest the flour and water before adding salt",
            "fold the dough instead of kneading it",
            "let it rise slowly in the fridge",
            "bake it in a covered pot",
            "wait until it is cool before cutting it",
        ),
        (
            "Keep the dough near 24 °C.",
            "A starter of 20 % of the flour's weight is enough.",
            "The pot should reach 240 °C first.",
        ),
    ),
    (
        "growing tomatoes on a balcony",
        (
            "choose a compact variety",
            "pick the sunniest corner",
            "use a deep pot with holes",
            "water the soil and not the leaves",
            "tie the stem to a stick",
            "pinch out the side shoots",
        ),
        ("Each plant needs about 15 litres of soil.", "Aim for 6 hours of sun.", "Feed them every 10 days."),
    ),
    (
        "learning the guitar",
        (
            "tune the strings every time",
            "start with two easy chords",
            "change chords slowly and cleanly",
            "keep a steady rhythm with your foot",
            "play along with a song you love",
            "record your playing once a week",
        ),
        (
            "Set a metronome to 60 beats per minute.",
            "Strings of 0.010 inch are kinder to fingers.",
            "Practise 15 minutes a day.",
        ),
    ),
    (
        "running a first race",
        (
            "begin with short and easy runs",
            "mix walking with running",
            "take rest days seriously",
            "buy shoes that fit",
            "add distance a little at a time",
            "start the race slower than you want to",
        ),
        (
            "Add no more than 10 % a week.",
            "Easy runs stay below 140 beats per minute.",
            "Drink 200 ml before you start.",
        ),
    ),
    (
        "saving money each month",
        (
            "write down what you spend",
            "pay your savings first",
            "cancel what you do not use",
            "cook at home more often",
            "plan for the yearly bills",
            "keep a small buffer",
        ),
        ("Put 10 % of your pay aside.", "A buffer covers 3 months.", "A coffee a day is about 900 euros a year."),
    ),
    (
        "repairing a bicycle tyre",
        (
            "take the wheel off",
            "lever the tyre over the rim",
            "find the hole with water",
            "roughen the rubber before gluing",
            "check the tyre for glass",
            "pump it up in stages",
        ),
        ("Let the glue dry for 5 minutes.", "Pump it to about 4 bar.", "Use 2 levers, 10 cm apart."),
    ),
    (
        "writing a cover letter",
        (
            "open with why you want this job",
            "name one thing you achieved",
            "match the words of the advert",
            "keep it to a single page",
            "ask a friend to read it",
            "close with a clear next step",
        ),
        ("Stay under 300 words.", "Spend 20 minutes on the first line.", "Use a font of 11 points."),
    ),
    (
        "training a puppy",
        (
            "reward what you like at once",
            "keep the lessons short",
            "use the same word each time",
            "ignore what you do not like",
            "practise in quiet places first",
            "let the puppy sleep a lot",
        ),
        ("A lesson lasts 5 minutes.", "Puppies sleep 18 hours a day.", "Give the treat within 1 second."),
    ),
    (
        "photographing people",
        (
            "look for soft light",
            "focus on the nearest eye",
            "keep the background plain",
            "talk while you take pictures",
            "move closer than feels natural",
            "take many and keep few",
        ),
        ("Try an aperture of f/2.8.", "Stay above 1/200 second.", "A lens of 85 mm flatters faces."),
    ),
    (
        "sleeping better",
        (
            "get up at the same time",
            "leave the phone outside",
            "keep the bedroom cool and dark",
            "stop coffee after lunch",
            "take a walk in the morning",
            "read something dull in bed",
        ),
        ("Keep the room near 18 °C.", "Avoid screens for 60 minutes.", "Most adults need 7 to 9 hours."),
    ),
    (
        "learning Italian",
        (
            "learn the commonest words first",
            "speak aloud from the first day",
            "listen to slow radio",
            "label the things in your kitchen",
            "find someone to talk to",
            "review old words before new ones",
        ),
        ("Learn 10 words a day.", "The first 1,000 words cover 80 % of talk.", "Review after 1, 3 and 7 days."),
    ),
    (
        "painting a room",
        (
            "empty the room and cover the floor",
            "wash the walls",
            "fill the holes and sand them",
            "paint the edges first",
            "roll from top to bottom",
            "take the tape off while it is wet",
        ),
        ("One litre covers 10 square metres.", "Wait 4 hours between coats.", "Use a roller of 25 cm."),
    ),
    (
        "speaking in public",
        (
            "know your first sentence by heart",
            "tell one story",
            "breathe out before you begin",
            "look at one person at a time",
            "slow down at the important part",
            "practise standing up",
        ),
        ("Aim for 130 words a minute.", "Pause for 2 seconds.", "Rehearse it 5 times."),
    ),
    (
        "cooking for a large party",
        (
            "choose dishes that wait well",
            "make one thing the day before",
            "borrow a second big pot",
            "write a plan for the afternoon",
            "let guests bring the drinks",
            "serve it at room temperature",
        ),
        (
            "Count 250 g of food for each guest.",
            "Cook the rice 40 minutes ahead.",
            "Keep hot dishes above 60 °C.",
        ),
    ),
    (
        "setting up a home network",
        (
            "place the router in the middle",
            "change the default password",
            "update its software",
            "use a cable for the desk",
            "give guests their own network",
            "write the settings down",
        ),
        ("Use the 5 GHz band nearby.", "A wall costs about 6 dB.", "Choose a password of 16 characters."),
    ),
    (
        "keeping houseplants alive",
        (
            "check the soil with a finger",
            "turn the pots now and then",
            "dust the leaves",
            "keep them away from the heater",
            "repot them in spring",
            "water less in winter",
        ),
        ("Water when the top 3 cm are dry.", "Feed at 50 % strength.", "Most like 18 to 24 °C."),
    ),
    (
        "planning a week of hiking",
        (
            "walk your boots in",
            "pack less than you think",
            "mark where there is water",
            "tell someone your route",
            "start early in the day",
            "keep one dry layer",
        ),
        ("Carry at most 20 % of your weight.", "Count 15 minutes for each kilometre.", "Take 2 litres of water."),
    ),
    (
        "learning to swim",
        (
            "blow bubbles in shallow water",
            "float on your back",
            "kick from the hip",
            "breathe to the side",
            "swim short lengths with rests",
            "ask a coach to watch you",
        ),
        ("Swim 8 lengths of 25 m.", "Rest for 30 seconds.", "Water of 28 °C is comfortable."),
    ),
    (
        "organising a small library",
        (
            "take every book down",
            "give away what you will not read",
            "group them by subject",
            "leave room on each shelf",
            "keep the tall ones together",
            "write a simple list",
        ),
        ("Leave 15 % of each shelf free.", "A metre holds about 40 books.", "Keep humidity near 50 %."),
    ),
    (
        "brewing better coffee",
        (
            "buy fresh beans",
            "grind just before brewing",
            "weigh the coffee and water",
            "wet the grounds first",
            "pour in slow circles",
            "clean the grinder",
        ),
        ("Use 60 g for each litre.", "Water at 94 °C works well.", "The brew takes 3 minutes."),
    ),
)

_PROMPTS = (
    "How do I get better at {}?",
    "What should a beginner know about {}?",
    "I have never tried {} before. Where should I start?",
    "My sister wants to take up {}. What should I tell her?",
    "Can you give me a plan for {}?",
    "I keep failing at {}. What am I doing wrong?",
    "What are the most common mistakes in {}?",
    "I have one free weekend for {}. How should I use it?",
    "Explain {} to me as simply as you can.",
    "My neighbour swears there is a trick to {}. Is there?",
    "I am thinking about {}, but I have little time. Any advice?",
    "What would an expert say about {}?",
    "I want to teach my children about {}. How do I begin?",
    "Is {} worth the effort, and how would I go about it?",
    "What do I need to buy for {}, and what can I skip?",
    "I tried {} last year and gave up. How do I try again?",
    "We are a group of friends interested in {}. What should we do first?",
    "Please help me with {}; I would like to make progress this month.",
    "What is the one thing that matters most in {}?",
    "I read a lot about {} and now I am confused. Can you sort it out?",
)

MAX_PROMPTS = len(_TOPICS) * len(_PROMPTS)

_OPENERS = (
    ("Here is what works for {}.", "A short answer on {}.", "This is how people go about {}.", "On {}: see below."),
    ("Here's what works for {}.", "A short answer on {}, then.", "So, this is how people go about {}.", "Okay, {}."),
)
_WARMTH = (
    ("I understand how you feel.", "It is kind of you to ask.", "You are not alone in this.", "I feel for you."),
    (
        "Be gentle with yourself.",
        "I am glad to help you.",
        "Trust yourself, you are doing fine.",
        "I care how it goes.",
    ),
)
_CHEERS = (
    ("What a great idea!", "This is going to be fun!", "I love this question!", "How exciting!"),
    ("You will do great!", "Go for it!", "Enjoy every minute!", "It is so worth it!"),
    ("Amazing things are ahead!", "Yes, yes, yes!", "Wow, just start!", "Hooray for beginners!"),
)
_HEDGES = (
    "Perhaps {}",
    "Maybe {}",
    "It might help if you {}",
    "Possibly {}",
    "You could perhaps {}",
    "It may be that you should {}",
)
_JOKES = (
    "If all else fails, blame the cat, as a joke goes.",
    "Funny how the expert is the one who has failed most, haha.",
    "My uncle tried it once; the joke is that the fire brigade enjoyed it.",
    "Do not laugh, but even a goat could do it, haha.",
    "The joke among experts is that nobody reads the manual.",
    "Haha, at least it is cheaper than a boat.",
)
_FORMAL = (
    (
        "Furthermore, consistency is essential.",
        "Moreover, patience is advisable.",
        "Accordingly, one should persevere.",
    ),
    ("In conclusion, regular practice is required.", "Therefore, one ought to proceed methodically."),
)
_STARTS = ("First", "Then", "Next", "After that", "Also", "Finally")

# One pattern for each style after `length`; its matches are counted.
_PATTERNS = tuple(
    re.compile(pattern, re.IGNORECASE | re.MULTILINE)
    for pattern in (
        r"^- ",
        r"\b(?:feel|kind|alone|gentle|glad|yourself|care)\b",
        r"!",
        r"\b(?:perhaps|maybe|might|possibly|may be)\b",
        r"\b(?:joke|haha)\b",
        r"\d[\d.,/]*",
        r"\b(?:furthermore|moreover|accordingly|conclusion|therefore)\b",
    )
)


@dataclass(frozen=True, eq=False, kw_only=True)
class Corpus:
    """Distinct requests and answers.

    Attributes:
        prompts: Requests, (prompts,).
        responses: Answers, (items,), all different within a prompt.
        prompt: Request of every answer, in order, (items,).
        style: What `count_style` counts in every answer, (items, 8).
    """

    prompts: tuple[str, ...]
    responses: tuple[str, ...]
    prompt: IntArray
    style: FloatArray


def write_texts(n_prompts: int, n_responses: int, *, seed: int) -> Corpus:
    """Write requests and so many answers to each.

    Raises:
        ConfigError: More prompts than there are (400), or fewer than one prompt or two answers.
    """
    if not 1 <= n_prompts <= MAX_PROMPTS:
        raise ConfigError(f"n_prompts is {n_prompts}; texts have 1 to {MAX_PROMPTS} prompts")
    if n_responses < 2:
        raise ConfigError(f"n_responses is {n_responses}; a comparison needs at least 2")
    rng = np.random.default_rng(seed)
    places = rng.permutation(MAX_PROMPTS)[:n_prompts]
    prompts, responses = [], []
    for place in places:
        topic = _TOPICS[place // len(_PROMPTS)]
        prompts.append(_PROMPTS[place % len(_PROMPTS)].format(topic[0]))
        answers: dict[str, None] = {}  # in order and without repeats
        while len(answers) < n_responses:
            answers[_answer(topic, rng.integers(0, _LEVELS), rng)] = None
        responses += list(answers)
    return Corpus(
        prompts=tuple(prompts),
        responses=tuple(responses),
        prompt=np.repeat(np.arange(n_prompts, dtype=np.int32), n_responses),
        style=count_style(responses),
    )


def count_style(texts: Sequence[str]) -> FloatArray:
    """Count what a reader can see in each text: `STYLE_NAMES`, (texts, 8).

    Length is in words; the others are numbers of bullets, warm words, exclamation marks, hedges, jokes, numbers, and
    formal connectives.
    """
    return np.array(
        [[len(text.split()), *(sum(1 for _ in pattern.finditer(text)) for pattern in _PATTERNS)] for text in texts],
        dtype=np.float64,
    ).reshape(len(texts), len(STYLE_NAMES))


def _some(phrases: Sequence[str], n: int, rng: np.random.Generator) -> list[str]:
    return [phrases[i] for i in rng.permutation(len(phrases))[:n]]


def _answer(topic: _Topic, level: np.ndarray, rng: np.random.Generator) -> str:
    """One answer on a topic with these amounts of each style."""
    activity, steps, details = topic
    n_more, bullets, warmth, cheers, hedges, jokes, n_details, formality = level.tolist()

    chosen = _some(steps, 1 + n_more, rng)
    hedge = _some(_HEDGES, hedges, rng)
    hedged = [hedge[i].format(step) if i < len(hedge) else step for i, step in enumerate(chosen)]
    if bullets:
        body = "\n" + "\n".join(f"- {step[0].upper()}{step[1:]}." for step in hedged) + "\n"
    else:
        starts = [_STARTS[0], *_some(_STARTS[1:-1], n_more, rng), _STARTS[-1]]
        body = " ".join(f"{step}." if i < len(hedge) else f"{starts[i]}, {step}." for i, step in enumerate(hedged))
    opener = _some(_OPENERS[0 if formality else 1], 1, rng)[0].format(activity)
    parts = [
        *(_some(_CHEERS[0], 1, rng) if cheers else []),
        opener[0].upper() + opener[1:],
        *(_some(_WARMTH[0], 1, rng) if warmth else []),
        body,
        *_some(details, n_details, rng),
        *(_some(group, 1, rng)[0] for group in _FORMAL[:formality]),
        *_some(_JOKES, jokes, rng),
        *(_some(group, 1, rng)[0] for group in _WARMTH[1:warmth]),
        *(_some(group, 1, rng)[0] for group in _CHEERS[1:cheers]),
    ]
    return " ".join(parts).replace(" \n", "\n").replace("\n ", "\n").strip()
