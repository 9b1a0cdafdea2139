"""How people say that an answer was wrong, and what is right: tables of patterns, and nothing else.

`genome.collectors.turns` reads them. All are matched without regard to case, from the beginning of a turn or a clause.
Words may be written as in text messages. What costs precision is left out: a wrong lesson is worse than a missed one.
"""

from __future__ import annotations

import re
from re import Pattern


def any_of(*patterns: str) -> str:
    """One pattern that matches what any of these does."""
    return "(?:" + "|".join(patterns) + ")"


def compiled(*patterns: str) -> tuple[Pattern[str], ...]:
    """Patterns without regard to case."""
    return tuple(re.compile(pattern, re.IGNORECASE | re.DOTALL) for pattern in patterns)


WRONG = any_of(
    r"(?:so |absolutely |utterly |totally |completely |plain |just |simply |all |very )*(?:wr?o?ng|rong|incorrect|"
    r"inaccurate|untrue|false|mistaken|erroneous|rubbish|nonsense|bullshit|garbage|useless)\b(?! (?:to|for|if|when|"
    r"of|with)\b)",
    r"(?:so )?not (?:quite |at all |really |even |actually |strictly |entirely )*(?:right|rite|correct|true|"
    r"accurate)\b(?! (?:to|for|if|when|of)\b)",
    r"(?:an? )?(?:error|mistake)\b",
)
IS = r"(?:'?s| is| was| are| r|'re| were)"
IS_NOT = (
    r"(?:(?: is| was| are| does| do| did| has| have| wo| ca| could)(?:n'?t| not)| won'?t| can'?t| ain'?t| don'?t|"
    r"'s not)"
)
THAT = r"(?:that|tht|dat|this|it|these|those|which)"
PART = (
    r"(?:answer|reply|response|output|result|code|calculation|formula|translation|total|tally|link|citation|quote|"
    r"quotation|source|reference|command|script|function|step|line|paragraph|sentence|number|figure|date|"
    r"derivation|example|explanation|part|one|solution|query|regex|url|spelling|summary|tone|version|draft|"
    r"clause)s?"
)
"""What an answer is made of."""
ANSWER = (
    rf"(?:{THAT}|(?:the|your|ur|dat|that|this)(?: same| first| second| third| last|"
    rf" next)?(?: \w+)?? {PART}(?: (?:you|u) \w+(?: \w+)?| of (?:this|that|your) \w+)?|"
    r"(?:this|that|your|ur) (?:letter|email|poem|recipe|list|table|plan|info(?:rmation)?|advice|instructions|story|"
    r"title|text|picture|chart|joke))"
)
"""The answer, or a part of it, as a subject."""
NO = r"no+(?:[\s,]+no+)+|no+(?:pe?)?|na+h*|naw"

SPELLED = {
    "u": "you", "ur": "your", "r": "are", "da": "the", "teh": "the", "tht": "that", "dat": "that", "dis": "this",
    "nt": "not", "cnt": "can't", "dnt": "don't", "wat": "what", "gd": "good", "ite": "it's", "cn": "can",
    "shud": "should", "doesnt": "doesn't",
    "didnt": "didn't", "dont": "don't", "wont": "won't", "isnt": "isn't", "cant": "can't",
    "wasnt": "wasn't", "thats": "that's", "ive": "I've", "im": "I'm",
}  # fmt: skip
"""Words of text messages, as they are read. Only in lower case: R and Da may be names."""
SHORTHAND = re.compile(rf"(?<![\w'`\"/.-])(?:{'|'.join(SPELLED)})(?![\w'`\"/.-])")

FILLER = re.compile(
    any_of(
        r"h+m+|u+h+m?|um+|erm*|oh+|ah+|eh+|huh|well|lol|lmao|ha(?:ha)*|ugh+|crikey|what\?",
        r"oops|wait(?: a (?:minute|second|sec))?|hang on|hold on|ok(?:ay)?|yeah|right|look|listen|so|and|but|"
        r"though|again",
        r"sorry(?: to (?:be a pain|nitpick|bother you|say)(?: again)?)?|apologies|excuse me|pardon(?: me)?|"
        r"forgive me",
        r"sir|ma'?am|madam|dude|bro|bruh|m8|mate|man|love|pal|yaar|dear|seriously|really",
        r"come on|thanks|thank you|thx|ty|unfortunately|regrettably|honestly",
        r"(?:i'?m )?(?:pretty|fairly|quite) sure|i regret to say(?: that)?|i'?m (?:really |so )?(?:afraid|"
        r"sorry)(?: that)?(?: but)?|i am afraid(?: that)?|it (?:seems|appears|looks like)(?: that)?",
        r"i (?:really )?(?:think|believe|guess|suspect|thought)(?: that)?|imo|please note(?: that)?|"
        r"kindly note(?: that)?|note that",
        r"i don'?t (?:want|mean) to (?:nitpick|be (?:rude|difficult|picky))|i (?:could|may|"
        r"might)(?: well)? be (?:wrong|mistaken|misremembering|misreading)|i hate to (?:be that|say|"
        r"nitpick)(?: person| guy| it)?|not to be (?:picky|rude|ungrateful|difficult)|(?:only |"
        r"just )?(?:a )?(?:tiny|small|minor) (?:thing|correction|nitpick|point|note)|technically",
        r"maybe i'?m (?:wrong|mistaken)|correct me if i'?m wrong|perhaps i'?m missing something|"
        r"it might just be me|to be (?:honest|fair|precise)|good (?:try|start|effort)|boss|guys|folks|i (?:may|"
        r"must) (?:point out|say)(?: that)?|(?:may|can) i point out(?: that)?|nice try|thanks for trying",
    )
    + r"(?:[\s,.!?:;-]+|$)",
    re.IGNORECASE,
)
"""What may stand before the matter."""

ASIDE = compiled(
    r"no+,? (?:worr|prob|bother|issue|rush|hurry|need|thank|thx|ty\b|idea|clue|doubt|offen[cs]e|more\b|matter|"
    r"biggie|stress)",
    r"(?:no+[\s,]+)+(?:that'?s (?:all|it|fine|ok|enough|good)|that (?:will|would) be all|it'?s (?:fine|ok|good|"
    r"alright|all right)|it is (?:fine|ok)|i'?m (?:good|fine|ok|all set|done)|leave it|forget it|please don'?t|"
    r"don'?t\b|wait\b|just\b|but\b|let'?s)",
    r"(?:actually,? )?i (?:meant|ment|mean|wanted) to\b(?! say the\b)",
    r"wrong (?:chat|window|number|tab|person|button|thread|file|conversation|channel)",
    r"i (?:was|am|'m) wrong\b|i'?m wrong\b|my (?:bad|mistake|fault)\b|(?:sorry,? )?typo|soz typo",
    r"please (?:disregard|ignore)|(?:please |kindly )?correct (?:the following|my|this|these|the errors)",
    r"actually,? (?:can|could|would|will|may|i|i'?m|i'?d|we|let'?s|please|hold|while|if|do|make|give|never ?mind|"
    r"before)\b(?! (?:meant|said|asked|am asking))",
    r"actually,? (?:that|this|it)(?:'s| is| was| sounds| looks) (?:pretty |really |quite |very |so |a |"
    r"not )*(?:great|good|fine|nice|perfect|interesting|cool|awesome|better|ok|okay|helpful|funny|amazing|bad|"
    r"right|correct|lovely|brilliant)",
    r"wrong\W+that'?s what|wrong answers?[.!]*$",
    r"(?:not to worry|not bad|never ?mind|nvm|you'?re welcome)",
)
"""Turns that begin like a correction and are none: matched after the fillers, before anything else."""

BARE_NO = re.compile(
    rf"(?:{NO})(?=[\s]*[,.!;:-]|\s+(?:it|its|it's|that|that's|thats|the|this|bro|m8|sir|love|mate|i (?:said|sed|"
    rf"meant|ment|asked|told))\b|$)[\s,.!;:-]*",
    re.IGNORECASE,
)
"""A no by itself. After a question of the assistant it is an answer, not a denial."""

HINTED = re.compile(
    r"(?:how many (?:more )?times|for the (?:last|umpteenth|hundredth) time|are you (?:kidding|serious|blind|"
    r"stupid|deaf)(?: me)?|with (?:all due )?respect|again|i(?:'ve| have) (?:already )?told (?:you|u)[^,.!?]*|"
    r"i believe there (?:has been|is|must be) a misunderstanding|there (?:has been|is|must be|seems to be)(?: some|"
    r" a)? (?:misunderstanding|confusion|mix-?up)|this (?:requires|needs) (?:a )?correction|almost|close|nearly|"
    r"jesus|christ|ffs|oh come on)[\s,.!?:-]+|(?:sorry|thanks|thank you|apologies)[^.?!]{0,25}?,? (?:but|"
    r"though) i (?:really )?(?:think|believe)(?: that)? ",
    re.IGNORECASE,
)
"""A denial that is not said. Only a statement behind it counts."""

DENIAL = compiled(
    rf"(?:{ANSWER})(?:{IS})?(?: still| also| simply| just)? {WRONG}(?: again| too| sir)?",
    rf"(?:{ANSWER}){IS_NOT} (?:quite |at all |really |even |actually |entirely |be )*(?:right|rite|correct|true|"
    rf"accurate)\b(?: at all)?",
    rf"(?:is |was )?{WRONG}(?:[\s,]+{WRONG})*(?: again| answer| sir)?(?=\s*[,.!;:-]|$)",
    r"(?:you|u|you've|you have|ya)(?: \w+)? (?:got (?:it|that|this) (?:all )?(?:wr?o?ng|rong)|(?:mis)(?:quoted|"
    r"understood|read|spelled|spelt|heard|stated)(?: \w+){0,3})",
    r"(?:you|u|you've|you have)(?: may have| might have| appear to have| seem to have)? ?(?:mixed|confused|muddled|"
    r"swapped)(?: up)?(?: (?:the (?:two|2)(?= *[,.!;]|$)|(?:the|those|your)(?: two)? \w+|it|them|those|these|"
    r"two things|things))?(?: up)?",
    r"(?:you|u) (?:are|r|were)(?: telling| saying)?(?: totally| completely)? (?:wr?o?ng|incorrect|mistaken)\b|"
    r"(?:you're|ur|your)(?: totally| just)? (?:wr?o?ng|incorrect|mistaken|useless)\b",
    r"(?:you|you've|you have) (?:made a mistake|given (?:the |a )?wrong \w+)|you(?:'re| are) off by \w+(?: \w+)?",
    r"(?:to correct (?:your \w+|you)|i must correct you|let me correct (?:you|that))|(?:so )?close(?=[,.!])|"
    r"not quite|almost(?=[,.!])|not like that",
    r"(?:bullshit|rubbish|nonsense|codswallop|garbage|bollocks)\b(?: again| mate)?",
)
"""That the answer is wrong. What follows may say what is right."""

_AROUND = r"(?:actually |really |in fact |just |probably |supposed to be |definitely )*"
_NAMED = r"(?:(?:called|named|spelled|spelt|spelt as|pronounced|written|known as)(?: as)? )?"
_RIGHT = r"(?P<right>\S(?:.*?\S)?)"
_NOT = r"(?:,? (?:and )?(?:not|rather than|instead of)(?: in| on| the| a| an)* (?P<instead>(?:[^,;!?]|,(?=\d))+?))"
_END = r"(?:\s*(?:(?<!\b[DM]r)(?<!\bMrs)(?<!\bMs)(?<!\bSt)[.!?;]+(?=\s|$)|$|\n| - ))"
_TOPIC = r"(?:in \w+ )?(?:the|da|teh|my|his|her|its|their)(?: (?!(?:is|was|are|not|should|i|you)\b)[\w'/-]+){1,6}?"
_BE = (
    r"(?:'?s|'re| is| was| are| were| should be| shld be| must be| has to be| needs to be| ought to be| should say|"
    r" should read| might be| reads:?| be)"
)

TAG = re.compile(
    r"[\s,-]*(?:\bif i'?m not mistaken|\bto be honest|\bhow many times do i (?:have|need) to (?:say|tell).*|"
    r"\bi (?:think|believe|reckon)|\b(?:actually|btw|lol|smh|though|tho|there|mate|sir|yaar|bro|boss|guys|dude|"
    r"old bean|(?:you|u) (?:idiot|muppet|moron|clown|fool)|genius|surely|please|only))(?=\s*[.!?,]*$)",
    re.IGNORECASE,
)
"""What may stand behind the matter."""

STATED = compiled(
    rf"(?:the |da )?answer(?: is| was| should be|:) {_RIGHT}{_NOT}?{_END}",
    rf"(?:the |da )?(?:correct|right|actual|proper|good|real|exact)(?: \w+){{0,2}}?(?:{_BE}|:) (?::|"
    rf",)?{_NAMED}{_RIGHT}{_NOT}?{_END}",
    rf"(?:it|its|it's|that|these)(?:{_BE})?(?<=s|e|d|y|:) {_AROUND}{_NAMED}{_RIGHT}{_NOT}{_END}",
    rf"(?:it|that){_BE} {_AROUND}{_NAMED}{_RIGHT}{_END}",
    rf"its {_AROUND}{_NAMED}{_RIGHT}{_END}",
    rf"it reads:? {_RIGHT}{_END}",
    rf"(?:should|shld|must|ought to|has to|needs to) (?:be|say|read) {_RIGHT}{_NOT}?{_END}",
    rf"(?:is|was|should)n'?t (?:it|that|this|{_TOPIC}) (?:be )?{_RIGHT}\?+",
    rf"(?:(?:you|u|we) (?:say|write|need|want)|use|say|write) {_RIGHT}{_NOT}?{_END}",
    rf"(?:try|run|type|do) (?P<right>`[^`]+`){_END}",
    rf"{_TOPIC}(?:'s| is| was) (?:called|named|spelled|spelt|pronounced) {_RIGHT}{_END}",
    rf"{_TOPIC}{_BE} {_AROUND}{_NAMED}{_RIGHT}{_NOT}{_END}",
)
"""After a denial: what is right, and what it stands in place of. The first that matches counts."""

UNPROMPTED = compiled(
    rf"(?:is|was|should)n'?t {_TOPIC} (?P<right>\S*\d\S*(?: \S{{1,3}})?)\?+$",
    rf"(?:it's|its|it is|that's|it should be|it must be) not [\"'`]?(?P<instead>[^,;!?]+?)[\"'`]?(?:,| but|"
    rf";)? (?:it's|its|it is|it was|but|that's) {_RIGHT}{_END}",
    rf"not [\"'`]?(?P<instead>[^\s,;!?]+)[\"'`]?, {_RIGHT}{_END}",
    rf"(?:it's|its|it is|it was|it should be|it must be|it should say|it should read|that should be|"
    rf"should be) {_AROUND}{_NAMED}{_RIGHT}{_NOT}{_END}",
    rf"(?:it's|its|it is) (?:spelled|spelt|pronounced|called|written) {_RIGHT}{_END}",
    r"[^.?!]{0,60}?\bshould (?:be|say|read) (?P<right>\"[^\"]+\"|`[^`]+`)[.!]*$",
    rf"{_TOPIC}{_BE} {_AROUND}{_NAMED}{_RIGHT}, not (?:in |on |the |a )*(?P<instead>(?:[^,;!?]|,(?=\d))+?){_END}",
    r"\*(?P<right>[\w'-]+(?: [\w'-]+)?)$",
    rf"(?:it |that |this )?(?:should|shld) (?:be|say|read) {_RIGHT}{_END}",
    rf"(?:is|was|should)n'?t (?:it|that|this|{_TOPIC}) (?:be )?(?P<right>[\w\d`'\"<>=!.$€£ °%-]+?)\?+$",
    rf"(?:it|that) might be {_RIGHT} rather than (?:the )?(?P<instead>(?:[^,;!?]|,(?=\d))+?){_END}",
    r"(?P<right>`[^`]+`|\"[^\"]+\"), not (?P<instead>`[^`]+`|\"[^\"]+\")[.!]*$",
    r"(?P<right>[\w.,:%$€£°/-]+(?: [\w.:%/-]+){0,3}), not (?P<instead>[\w.:%$€£°/-]+(?: [\w.:%/-]+){0,3})[.!]*$",
)
"""A right answer said without a denial: only in forms that say nothing else."""

ALONE = compiled(
    rf"(?:the |da )(?:correct|right|proper|actual|exact)(?: \w+){{0,2}}?(?: is| was|"
    rf" should be) {_NAMED}{_RIGHT}{_NOT}?{_END}",
    rf"(?:actually, )?(?:that'd be|that would be|you mean) {_RIGHT}{_END}",
    rf"actually,? (?:it's|its|it is|it was|they're|that's|that is) {_AROUND}{_NAMED}{_RIGHT}{_NOT}?{_END}",
    rf"actua?l?ly,? its {_AROUND}{_RIGHT}{_NOT}?{_END}",
    rf"(?:it's|its|it is|it was) actually {_NAMED}{_RIGHT}{_NOT}?{_END}",
    r"actually,? (?P<right>(?!i\b|you\b|we\b|can\b|my\b)(?:[\w'-]+ ){1,4}?(?:is|was|are|were) [^,?]+?)[.!]*$",
    r"actually,? (?P<right>(?:the|his|her) [\w'-]+(?:'s| is| was)(?: by| on| in| from)? [^,?]+?)[.!]*$",
)
"""*Actually* and its like with a plain statement: a correction where nothing is asked beside it."""

VERB = re.compile(
    r"\b(?:is|was|are|were|goes|go|comes?|came|covers?|starts?|started|begins?|began|ends?|ended|happened|opened|"
    r"closed|means?|meant|won|wrote|lives?|died|founded|signed|invented|takes?|costs?|uses?|contains?|belongs?|"
    r"runs?|has|leaves?|need|have to)\b|'s\b",
    re.IGNORECASE,
)
"""Without one, what follows a denial is no statement."""
NO_STATEMENT = re.compile(
    r"(?:it|its|it's|that|this|thats|there|i|i'm|i've|my|me|you|u|your|ur|he|she|they|let|please|pls|kindly|try|"
    r"check|look|do|don'?t|fix|redo|rewrite|give|make|read|stop|go|think|see|can|could|would|will|what|why|how|who|"
    r"where|when|which|are|is|did|does|and|but|so|again|still|same|not|no|in|on|at|for|with|to|shorter|longer|more|"
    r"less|ok|just|as|if|wait|before|(?:the |your )(?:first |second |third |last |next |same |whole |"
    r"other )?(?:answer|reply|response|output|result|code|link|command|script|function|step|line|query|solution|"
    r"test|tests|program|page|file|error|screen|build|app|site|one|rest|problem))\b",
    re.IGNORECASE,
)
"""Beginnings of what follows a denial and does not say what is right: complaints, requests, news of one's own."""
NO_ANSWER = re.compile(
    r"(?:not\b|no\b|still\b|too\b|so\b|very\b|empty|missing|broken|undefined|blank|the same|gone|great|good|fine|"
    r"nice|perfect|interesting|cool|awesome|better|ok\b|okay|pretty|what\b|why\b|how\b|where\b|when\b|because|"
    r"giving|getting|doing|saying|for\b|4 (?:my|me|a|the)\b|about|around|at (?:least|most)|under\b|over\b|up to\b|"
    r"written\b|\w+ing (?:to|too|up|in|out|over|with|for|at|on|tomorrow|today|so)\b|my\b|your\b|me\b|all\b|just\b|"
    r"really\b|failing|working|done|due\b|wrong|incorrect|like\b|more\b|less\b|shorter|longer|formal|due\b|hard\b|"
    r"easy\b|nonsense|useless|weird|strange|confusing|annoying|a lie|supposed|possible|clear|raining|late\b|ready|"
    r"safe\b|bad\b|an? (?:error|mistake|lie|shame|problem|list|different|bit))",
    re.IGNORECASE,
)
"""Beginnings of what stands where an answer would, and is none."""

CONCRETE = re.compile(
    r"\d|[`\"]|\S\s+[A-Z]|^[A-Z][a-z]|\b(?:one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|half|"
    r"twice|noon|midnight)\b"
)
"""What can be checked: a number, a name, a quotation. Unlike a taste it may be right or wrong."""

EXACT = re.compile(r"\d|[`\"]")
"""What a wish seldom has: of *should be* nothing less is taken for a correction."""
