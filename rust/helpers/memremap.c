// SPDX-License-Identifier: GPL-2.0

#include <linux/memremap.h>

__rust_helper void rust_helper_put_dev_pagemap(struct dev_pagemap *pgmap)
{
	put_dev_pagemap(pgmap);
}

__rust_helper struct dev_pagemap *
rust_helper_page_pgmap(const struct page *page)
{
	return page_pgmap(page);
}

#ifdef CONFIG_ZONE_DEVICE
__rust_helper void rust_helper_zone_device_folio_init(struct folio *folio,
						      struct dev_pagemap *pgmap,
						      unsigned int order)
{
	zone_device_folio_init(folio, pgmap, order);
}
#endif
