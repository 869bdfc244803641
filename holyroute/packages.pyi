import idna as idna
import urllib3 as urllib3
