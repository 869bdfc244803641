from requests.structures import *
