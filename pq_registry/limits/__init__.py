# SPDX-License-Identifier: Apache-2.0
"""Every bound of the system, with its unit and its reason. No module outside this package defines one.

A reader that meets more than a limit refuses before it allocates, parses or writes anything. All of them are read as
``limits.NAME``; the modules only sort them, so all they define is imported here.
"""

from pq_registry.limits.cards import *  # noqa: F403 - see above
from pq_registry.limits.client import *  # noqa: F403 - see above
from pq_registry.limits.documents import *  # noqa: F403 - see above
from pq_registry.limits.exchange import *  # noqa: F403 - see above
from pq_registry.limits.gateway import *  # noqa: F403 - see above
from pq_registry.limits.hub import *  # noqa: F403 - see above
from pq_registry.limits.intake import *  # noqa: F403 - see above
from pq_registry.limits.loader import *  # noqa: F403 - see above
from pq_registry.limits.log import *  # noqa: F403 - see above
from pq_registry.limits.mirror import *  # noqa: F403 - see above
from pq_registry.limits.service import *  # noqa: F403 - see above
from pq_registry.limits.storage import *  # noqa: F403 - see above
from pq_registry.limits.units import *  # noqa: F403 - see above
