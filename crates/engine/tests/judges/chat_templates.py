"""What transformers makes of chat templates.

Reads a JSON list of objects with template, messages, bos_token and eos_token from standard input and
writes a JSON list with the text for each, null where the template refuses the messages. Ends with 3
where a package is missing.
"""

import json
import sys

try:
    import transformers
    from transformers.utils.chat_template_utils import render_jinja_template
    import jinja2
except ImportError as error:
    print(error)
    sys.exit(3)

texts = []
for case in json.load(sys.stdin):
    try:
        rendered = render_jinja_template(
            conversations=[case["messages"]],
            chat_template=case["template"],
            add_generation_prompt=True,
            bos_token=case["bos_token"],
            eos_token=case["eos_token"],
        )
        texts.append(rendered[0][0])
    except (jinja2.exceptions.TemplateError, TypeError):
        texts.append(None)
print(f"transformers {transformers.__version__}, jinja2 {jinja2.__version__}", file=sys.stderr)
json.dump(texts, sys.stdout)
