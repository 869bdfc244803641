import charset_normalizer as chardet  # noqa: F401 - what requests calls it
import idna as idna
import urllib3 as urllib3
