"""How people complain of an answer without saying what is right: tables, like `genome.collectors.wording`."""

from __future__ import annotations

import re

from genome.collectors.wording import ANSWER, IS, IS_NOT, compiled

COMPLAINTS = compiled(
    rf"(?:{ANSWER})(?: just| only)? (?:reads?|sounds?|looks?|feels?) (?:like|wrong|off|robotic|odd|weird)\b",
    r"(?:that|this|it)(?:'s| is| was)? (?:just )?(?:a )?(?:total |complete |huge )?(?:waste of time|dead link|"
    r"broken link|mess|disaster)",
    r"(?:absolute|complete|total|utter|pure)(?:ly)? (?:nonsense|rubbish|garbage|crap|bollocks|bull\w*|drivel|tripe)",
    r"(?:bad|dead|broken|wrong|invalid) (?:link|url|output|answer|result|syntax|format|language|country|year|unit|"
    r"version)s?[.!]*$",
    r"(?:no (?:output|effect|luck|difference|result|dice|joy)|off by (?:one|a \w+)|too (?:long|short|vague|"
    r"generic)|empty|crashes|fails|hangs)[.!]*$",
    rf"(?:{ANSWER})(?:{IS})?(?: still| simply| just)? not (?:at all |really |quite |very |that |even )*(?:satisf\w+|"
    rf"good(?: enough)?|helpful|useful|acceptable|usable|enough|relevant|what)\b",
    rf"(?:{ANSWER})?(?: ?still| ?just)? ?(?:does|do|did|has|have|was|wo|ca|could)(?:n'?t| not| nt)(?: quite| really|"
    rf" even| actually)? (?:correspond|ring true|agree|fit|apply|open|load|show|install|start|parse|render|"
    rf"do (?:anything|what)|add up|sit right)\b",
    r"(?:the (?:figures|numbers|dates|names|examples|passage|quote|steps|instructions)[\w ]{0,40}?) (?:do not|"
    r"does not|don'?t|doesn'?t|is not|are not|isn'?t|aren'?t|cannot|can'?t) (?:correspond|match|agree|add up|exist|"
    r"to be found|be found|work|appear)",
    r"(?:that|it|this)(?: still)? (?:ai|wo)n'?t (?:gonna |going to )?(?:work|fly|compile|do|run|open|cut it)\b|"
    r"(?:it|this|that)(?: still| just)+ (?:hangs|crashes|fails|breaks|loops|freezes)",
    r"(?:you|you've|you have|i wonder (?:if|whether) you|i think you)(?: may| might)?(?: have)?(?: also| just|"
    r" completely| only)? (?:overlooked|counted|left out|left off|cut|deleted|removed|repeated|reversed|duplicated|"
    r"dropped|lost|invented|failed|neglected|hallucinated|contradict\w*|assumed|stopped|ran out|truncated|"
    r"got \w+ (?:wrong|backwards)|not taken|not included|not considered|haven'?t|did not|didn'?t)\b",
    r"you(?:'re| are) (?:having a laugh|making (?:this|that|it|things) up|not (?:listening|reading|answering)|"
    r"missing the point|repeating|contradicting|hallucinating)",
    r"(?:your|ur) (?:math|maths|logic|arithmetic|sum|sums|facts|numbers|dates|grammar|code|regex|formatting|"
    r"indentation)(?:'s| is| are| was| were)? (?:off|wrong|bad|broken|wonky|dodgy|out)\b|(?:bit|rather|very|"
    r"pretty) (?:dodgy|off|vague|misleading)\b",
    r"i (?:can'?t|cannot|could not|couldn'?t|don'?t) (?:even )?(?:open|see|find|run|access|read|use|install) (?:it|"
    r"that|this|any of|the \w+ (?:you|u))\b|i don'?t see (?:that|this|any such)",
    r"i (?:just )?(?:ran|tried|followed|follow|used|installed|pasted|clicked) (?:it|that|this|your|"
    r"the (?:instructions|steps|code|command|link))\b.{0,20}?(?:and|but|,)",
    r"(?:can (?:you|u) |could you |will you |please |kindly )+(?:just )?(?:read|understand|listen|pay attention|"
    r"re-?read)\b(?! (?:this|the following|through))",
    r"i(?:'m| am) (?:a bit |a little |rather |still )?(?:unsure|not sure|doubtful|sceptical|"
    r"skeptical) about (?:that|your)\b|i (?:doubt|question) (?:that|this)\b|i find (?:this|that|"
    r"your)[\w ]{0,20} (?:un\w+|hard to believe|confusing|wrong)",
    r"this is the (?:second|third|fourth|\w+th) time (?:you|u)",
    r"(?:that'?s|this is|it'?s) (?:the )?(?:exact )?same [\w ]{1,20}(?:you|as before|again)|(?:that|it|"
    r"this) made (?:it|things) worse",
)
"""More complaints, in looser words."""

AFTER_NO = compiled(
    r"it (?:says|said|prints|throws|returns|gives|fails|crashes|shows|still|just)\b|still\b|same\b",
    r"(?:the |my )?(?:same )?(?:output|result|code|link|command|script|function|tests?|page|file|error|screen|"
    r"build|app|program|site|problem|crash)s?\b(?: \w+)* (?:is|are|was|fail|print|return|say|do|does|crash|show|"
    r"throw|give)",
)
"""News after a no that say what still goes wrong."""

RESTATED = compiled(
    r"(?:actually,? )?(?:i|im) ?(?:meant|ment|mean|said|sed)(?: the| to say)? (?!to\b|it\b|thank|you\b|that i\b)",
    r"(?:actually,? )?i(?:'m| am| was)? (?:asked|asking|askin|told|requested)(?: you)?(?: 4| for| about| to|"
    r" not to)\b|i (?:asked|requested|was(?: sort of| kind of)? (?:hoping|looking|after)) (?!to\b|if\b|whether\b|"
    r"my\b|him\b|her\b|them\b|a friend|the \w+ (?:if|to)\b)\w+|i (?:did|clearly|specifically|already) (?:say|said|"
    r"asked?|told)\b",
    r"(?:i (?:probably )?(?:wasn'?t clear|should have been (?:clearer|more (?:clear|precise))))",
    r"i wanted to say\b",
    r"i told (?:you|u)\b|(?:y|why) (?:r|are|do|did) (?:u|you) (?:giving|give|keep|lying|using|change|ignore)",
)
"""Who says again what was asked. The answer missed it, and what is right is not said."""

MISTAKEN = compiled(
    rf"(?:{ANSWER})(?: \w+ly| still| just| also)?{IS_NOT} (?:\w+ly |even |seem to |quite |at all |gonna |going to )*"
    r"(?:work|wrk|compile|run|help|answer|address|make sense|add(?:s)? up|match|look right|function|exist|cover|"
    r"include|account|support|solve|fix|what|wat|how|right|correct|be right|a real|a thing)",
    rf"(?:{ANSWER})(?:{IS})? (?:still )?not (?:quite |even |at all |gonna |really |exactly )*(?:work|wrk|compil|"
    rf"help|what|wat|how|right|correct|a real|the \w+|function|match|it$)",
    rf"(?:{ANSWER}|the code)(?:{IS})? (?:ded|dead|broken|useless|garbage|nonsense|way off|(?:an? |complete |"
    rf"load of |old )*(?:nonsense|rubbish|garbage|tosh|lie)|completely useless|giving wrong|coming again)",
    r"(?:that'?s |that is )?(?:so )?(?:not|nt) (?:wat|what) i\b|(?:that|tht|dat) ain'?t (?:it|right)",
    r"(?:it |this |that |the code )?(?:does|do|did|is|has|have)(?:n'?t| not) (?:work|wrk|wrking|working|compile|"
    r"run|help|function|worked)\b",
    r"(?:it'?s? |this |that )?(?:still |nope )*not (?:working|wrking|compiling|helpful|correct|right)\b",
    r"(?:it's |its |it is |nope,? )?still (?:broken|wrong|not|doesn'?t|getting|the same|failing|incorrect)",
    r"(?:the |ur |your )?(?:same )?(?:error|mistake) (?:again|is coming)|same (?:error|problem|issue|mistake|thing|"
    r"result|answer|nonsense)\b|missing [\w ]{1,30}[.!]*$|doesn'?t (?:help|work)",
    r"i(?:'m)? (?:still )?(?:get|getting|got) (?:the same|an|this) (?:error|problem|exception|result)",
    r"(?:i tried(?: \w+)?,? but )?it (?:still )?(?:gives|throws|says|shows|returns) (?:me )?(?:the same|an error|"
    r"\"|wrong|error)",
    r"(?:this|that|the|your) (?:code|script|query|command|regex|function) (?:throws|fails|crashes|gives|is not|"
    r"does ?n.t)",
    r"(?:i don'?t|i do not) (?:think|believe|feel) (?:that'?s?|this|it|you|your)(?!.*\b(?:need|should|want)\b)",
    r"i'?m not (?:convinced|(?:entirely |quite |really |so )?sure about (?:that|this))|i'?m not (?:entirely |"
    r"quite |really )?sure (?:that'?s|this is|that is) (?:right|correct)",
    r"(?:you|u|you've|you have) (?:forgot|missed|skipped|ignored|omitted|misunderstood|misread|broke|made (?:that|"
    r"this|it|up)|totally made|didn'?t (?:answer|anser|read|do|include|understand|listen)|have not (?:understood|"
    r"answered)|did not (?:answer|understand|read)|answered (?:other|something|the wrong)|are not (?:getting|"
    r"understanding|listening)|don'?t (?:get|understand) (?:me|my|what)|muddled|got (?:it|that|completely|"
    r"the wrong)|keep (?:\w+ing)\b|(?:have )?(?:given|gave|giving) (?:me )?(?:the )?same)",
    r"did (?:you|u) even (?:read|listen|look)|are you sure(?: about (?:that|this|it)| (?:that'?s|this is|"
    r"that is) \w+)?\W*$|(?:kindly |please )?re-?check\b|what the (?:hell|heck|fuck) is (?:this|that)|"
    r"stop (?:making|lying|inventing|hallucinating)",
    r"there'?s? (?:is )?(?:an? )?(?:no such|error in|mistake in|errors in|mistakes in)|(?:this|that|"
    r"it) (?:contradicts|does not)",
    r"(?:your|the|ur) (?:answer|response|reply|explanation) (?:has|have|had|contains|fails|misses|ignores|"
    r"is missing|leaves out)",
    rf"(?:{ANSWER})(?: still)? (?:makes? no sense|omits?|lacks?|fails?|ignores?|misses|overlooks?|came out|"
    rf"contradicts?|is missing|makes absolutely)",
    rf"(?:{ANSWER})(?: still| really)?(?:{IS_NOT}) (?:sound|seem|look|feel|quite it\b|it\b|there\b)|neither of the|"
    rf"none of (?:the|these|those|your)",
    r"i (?:already |have )*(?:tried|followed) (?:that|this|it|your|all)|no luck\b|this is (?:the |an)?other question",
    r"i have checked|that (?:can'?t|cannot) be (?:right|correct|true)|there'?s no such",
)
"""Complaints about an answer that do not say what is right."""

OWN_MATTER = re.compile(
    r"\b(?:should|shall|can|could|do|must|may) i\b[^?]*\?|\bcan (?:you|u) help\b|\bwhat (?:now|next)\?", re.IGNORECASE
)
"""Who asks what to do tells of something of their own."""
