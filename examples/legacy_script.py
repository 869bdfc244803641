"""A script as people write it. It knows nothing of failover, and it is not edited: it is started in another way.

    CHAT_URL=http://127.0.0.1:8099/v1/chat/completions CHAT_KEY=none python legacy_script.py

It reads its endpoint from CHAT_URL and its key from CHAT_KEY.
"""

import os

import requests

response = requests.post(
    os.environ["CHAT_URL"],
    headers={"Authorization": f"Bearer {os.environ['CHAT_KEY']}"},
    json={"model": "gpt-4.1", "messages": [{"role": "user", "content": "Say hello."}]},
    timeout=(10, 60),
)
response.raise_for_status()
print(response.json()["choices"][0]["message"]["content"])
