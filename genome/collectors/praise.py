"""How people say that an answer was good: tables of patterns, like `genome.collectors.wording`."""

from __future__ import annotations

import re

from genome.collectors.wording import any_of, compiled

PRAISE = any_of(
    r"th?an(?:k|x)s?(?: you| u)?|thx|tysm|ty|cheers|ta|much appreciated|i(?: really)? appreciate|i am (?:most |"
    r"very |so )?grateful|(?:many|most) thanks",
    r"perfect(?:ly)?|perf|great|brilliant|excellent|awesome|superb|amazing|wonderful|fantastic|lovely|sweet|nice|"
    r"good (?:job|work|answer|explanation)|love (?:it|this|that)|solved|very good|spot on|exactly|"
    r"yes+[,! ]+(?:exactly|that'?s|it|perfect|ty|thx)|yep|correct|works|finally|ah,? that'?s|grand|bingo|nailed it|"
    r"job done|top notch|marvellous|admirable|(?:very|so|really|too|super|most) (?:good|helpful|useful|nice|clear|"
    r"kind)|good stuff|well done|bravo",
)
_LEAD = (
    r"(?:(?:oh my god|omg|lol|a?haha+|o+h+|ah+|yes+|yep|yeah|and|ok(?:ay)?|sir|wow|wah|yo+|heck yeah|hell yeah|aye|"
    r"fine|cool|now|finally|great|perfect|thx|thanks)[\s,.!]+)*"
)
PRAISED = compiled(
    rf"{_LEAD}(?:(?:that'?s|that is|this is|it'?s|it is|that was|it was|an?) )?(?:really |just |absolutely |"
    rf"so )*{PRAISE}\b",
    rf"{_LEAD}(?:u|you)(?:'?re| r| are|r)? (?:rock|the best|a (?:life ?saver|star|legend|genius))|"
    rf"(?:omg )?ur a life ?saver",
    rf"{_LEAD}(?:it |that |this )?(?:now |totally |all |really )*(?:work(?:s|ed)|wrks|wrkd|functions|did it|does it|"
    rf"did the trick|"
    r"(?:solved|fixed|sorted) it|helped|resolved)\b",
    rf"{_LEAD}(?:that'?s|that is|this is|this|that)(?: really)? (?:exactly |precisely |just |only )*(?:what i|it\b|"
    rf"right\b|correct\b|"
    r"the one|(?:so|very|really) (?:clear|helpful|kind|useful)|done the trick|perfect|i wanted)",
    rf"{_LEAD}(?:that|it|this|the \w+) (?:makes (?:perfect |a lot of |more |total )?sense(?: now)?|(?:clears|"
    rf"cleared) (?:it|that|things) up|"
    r"resolves|resolved|does it|is cleared|is very clear|is now in order)",
    r"good[.!]*$|(?:exactly|precisely|just) what i\b|took long enough|about time|thank god",
    r"(?!no\b)[^?]{1,60}[,.!] ?(?:thank you|thanks|cheers|ty)(?: so much| a lot| very much| for [\w ]{3,30})?[.!]*$",
    rf"{_LEAD}(?:that'?ll|this will|that will|this'll|it will) do\b|{_LEAD}now i (?:get|got|understand|see)\b|"
    rf"{_LEAD}(?:that|this|it) (?:answers|answered) (?:my|the|what)",
    rf"{_LEAD}(?:that|it|this) makes (?:way |so much |much |a lot )?more sense|{_LEAD}that'?s what i(?:'m|"
    rf" am) talking about|(?:you|u) (?:solved|fixed|nailed|saved|helped|made my day|cracked)|my problem is solved|"
    rf"i am (?:much )?obliged",
    r"i (?:do )?(?:think|believe|reckon) (?:that'?s|that has|that is|you'?ve) (?:it|cracked|done|solved|fixed|"
    r"got it)|you(?:'ve| have) (?:put my mind|solved|fixed|helped|made my)",
    r"i think (?:that does it|that'?s (?:it|right))",
)
NO_PRAISE = re.compile(
    r"\?|\b(?:but|though|although|rather|however|didn'?t|doesn'?t|don'?t|not|isn'?t|still|unfortunately|now (?!it|"
    r"is\b|i\b|works|that|in\b|all\b)\w+|can you|could you|please|(?:one|1|another) (?:more|thing|question)|next|"
    r"what about|try|instead|no worries|tell me|let'?s)\b",
    re.IGNORECASE,
)
"""What makes thanks something else: a request, a reservation, a refusal."""
