from requests.cookies import *
