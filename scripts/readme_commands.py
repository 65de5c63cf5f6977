"""Print the commands of a Markdown file that are marked to be run: ```bash blocks after `<!-- ci -->`."""

import re
import sys
from pathlib import Path

if __name__ == "__main__":
    text = Path(sys.argv[1]).read_text()
    blocks = re.findall(r"<!-- ci -->\n```bash\n(.*?)```", text, re.S)
    if not blocks:
        sys.exit(f"{sys.argv[1]} has no marked commands")
    print("\n".join(blocks))
